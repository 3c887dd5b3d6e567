"""HTML reports: all text is escaped, numbers are aligned, pictures are embedded."""

from __future__ import annotations

from crystallm.visualization.html_report import HtmlReport


def test_a_report_escapes_text_and_embeds_pictures():
    report = HtmlReport("<b>title</b>")
    report.heading("a & b")
    report.paragraph("<script>alert(1)</script>")
    report.table(("name", "n"), [("<x>", 1.23456), ("yes", True)])
    report.picture(b"png", 'a "caption"')
    html = report.html()
    assert html.startswith("<!doctype html>")
    assert "<script>" not in html
    assert "<b>" not in html
    assert "&lt;b&gt;title&lt;/b&gt;" in html
    assert "a &amp; b" in html
    assert '<td class="number">1.235</td>' in html
    assert "<td>True</td>" in html
    assert "data:image/png;base64,cG5n" in html
    assert 'alt="a &quot;caption&quot;"' in html
