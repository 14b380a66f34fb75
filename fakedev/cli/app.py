"""The commands of `fakedev`, one module each."""

from fakedev.cli import conformance, ctl, doctor, explain, mount, profiles
from fakedev.cli.tools import app

__all__ = ["app"]

app.command("mount")(mount.mount)
app.command("umount")(mount.umount)
app.command("ps")(ctl.ps)
app.add_typer(ctl.app, name="ctl")
app.command("explain")(explain.explain)
app.command("check")(profiles.check)
app.command("schema")(profiles.schema)
app.command("profiles")(profiles.profiles)
app.command("conformance")(conformance.conformance)
app.command("doctor")(doctor.doctor)
