"""The page and the HTTP API: one process that serves both, with one network for all who ask.

    asks      what may be asked for            desk      what processes that can be lost find out on crystals
    reading   how a formula is understood      engine    the thread that writes all requests' texts together
    jobs      what is under way                store     what is kept on disk
    runners   how each kind of job is done     guard     what is let in
    app       the routes                       metrics   what a monitor reads
    static/   the page

Needs the extra `web`. Nothing here decides what a crystal is: that is all in the packages above.
"""
