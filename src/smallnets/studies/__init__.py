"""The chapters' experiments: what is trained, how often, on what, and what is measured of it.

Every study is a package of one shape. `plan` has its settings, its presets by scale, the options
that a reader may give and `prepare`; `experiments` has functions of (data set, settings, seed),
and where that is much, modules beside it have a part of them. What they share is in `study` and
`networks`. The methods that they use are in the rooms `distill`,
`prune`, `search` and `quantize`, which know nothing of them.
"""
