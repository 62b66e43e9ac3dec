# Sourced: `venv_beside FOLDER` makes an environment that sees the project's own through a .pth file, so that only what
# it alone needs is installed into it. PYTHON: the project's interpreter.
venv_beside() {
  local target="$1" base
  base="$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')"
  [ -x "$target/bin/python" ] || "$PYTHON" -m venv "$target"
  "$target/bin/python" - "$base" <<'PY'
import pathlib, sys, sysconfig
# addsitedir reads the .pth files that lie there too: the project itself is installed by one of them.
line = f"import site; site.addsitedir({sys.argv[1]!r})\n"
pathlib.Path(sysconfig.get_paths()["purelib"], "project.pth").write_text(line)
PY
}
