"""The description of every route, as an OpenAPI document and as a page for people.

One module per kind of route holds the descriptions, in the form of `model`; `document` puts them together. A test fails
when a route of the application is missing here, or the other way round.
"""
