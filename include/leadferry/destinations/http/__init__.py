"""Push leads to a buyer's API, one by one, in chunks, or as the file itself.

* `model`: the keys in the batch file.
* `auth`, `bodies`: how a request proves who sends it, and what is in it.
* `rules`: what the buyer's answer means for each lead.
* `transport`: one HTTP request over the wire, its failures classified.
* `pace`, `errand`, `session`: which requests go when, and what is remembered of each.
"""

from __future__ import annotations

from leadferry.destinations.http.model import Http as Http
