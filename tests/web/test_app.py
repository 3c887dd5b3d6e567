"""The application: description of the API, static files, errors."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def test_the_api_describes_itself(served):
    described = served.get("/api/v1/openapi.json").json
    post = described["paths"]["/api/v1/jobs"]["post"]
    content = post["requestBody"]["content"]["application/json"]
    assert set(content["schema"]["discriminator"]["mapping"]) == {
        "generate",
        "search",
        "relax",
        "evaluate",
        "solve",
    }
    for example in content["examples"].values():
        request = example["value"]
        answer = served.post({**request, "energy": None, "n": 1})
        assert answer.status == 202, answer.body
        assert served.over(answer.json["id"])["state"] == "done"


def test_the_page_loads_nothing_from_elsewhere_and_holds_no_script(served):
    for path in ("/", "/api.html"):
        text = served.get(path).body.decode()
        assert not re.search(r"<script(?![^>]*\bsrc=)", text)
        assert not re.search(r"""(src|href)="(https?:)?//""", text)
        assert not re.search(r"\son\w+=|\sstyle=", text)
        for name in re.findall(r'(?:src|href)="((?:js|css|vendor)/[^"#]+|icon\.svg)"', text):
            assert served.get(f"/{name}").status == 200, name
    licence = served.get("/vendor/3Dmol-LICENSE.txt").body.decode()
    assert "Redistribution" in licence


def test_the_client_of_the_documentation_works(served):
    text = (Path(__file__).parents[2] / "docs" / "reference" / "http.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    program = program.replace("http://127.0.0.1:8000", served.address)
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert len(re.findall(r"^\d \S+ (?:True|False)$", output, re.MULTILINE)) == 8
    assert "_symmetry_space_group_name_H-M" in output
