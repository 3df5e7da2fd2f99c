"""Pages from templates: one style and one set of parts for all of them."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **values: object) -> str:
    """Return a page as text; every value that is not marked as safe is escaped."""
    environment = Environment(
        loader=PackageLoader("neuroprior", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page: str = environment.get_template(template).render(**values)
    return page
