"""The figure that every plot returns: plotly's, which never offers to send the data anywhere."""

from typing import Any

import plotly.graph_objects as go

_CONFIG = {"showSendToCloud": False, "displaylogo": False}


class ResultFigure(go.Figure):
    """A plotly figure whose toolbar has no button that uploads it, in a notebook, a window or a file."""

    def show(self, *args: Any, **options: Any) -> None:
        super().show(*args, **_without_upload(options))

    def to_html(self, *args: Any, **options: Any) -> str:
        return super().to_html(*args, **_without_upload(options))

    def write_html(self, *args: Any, **options: Any) -> None:
        super().write_html(*args, **_without_upload(options))

    def _repr_mimebundle_(self, *args: Any, **options: Any) -> Any:
        return super()._repr_mimebundle_(*args, **_without_upload(options))

    def _ipython_display_(self) -> None:
        """Show it through `show`, which plotly's own method bypasses."""
        import plotly.io as pio

        if pio.renderers.render_on_display and pio.renderers.default:
            self.show()
        else:
            super()._ipython_display_()


def _without_upload(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "config": {**_CONFIG, **(options.get("config") or {})}}
