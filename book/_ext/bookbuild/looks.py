"""An edit of the book's styles and scripts reaches the site.

Sphinx copies them only when it writes a page, and it writes none where no text has changed. A
setting that holds their fingerprint has it write all pages anew, without reading or running them.
"""

from pathlib import Path

from genbook.publishing import fingerprint


def note_looks(app, config):
    """Remember the files of the static folders."""
    folders = [Path(app.srcdir, folder) for folder in config.html_static_path]
    config.bookbuild_looks = fingerprint.digest(
        *(
            part
            for folder in folders
            for path in sorted(folder.rglob("*"))
            if path.is_file()
            for part in (path.relative_to(folder).as_posix(), path.read_bytes())
        )
    )


def setup(app):
    """Add the setting."""
    app.add_config_value("bookbuild_looks", "", "html", types=(str,))
    app.connect("config-inited", note_looks)
