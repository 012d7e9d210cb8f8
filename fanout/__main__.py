"""`python -m fanout` is the command `fanout`."""

from fanout.cli.main import main

main(prog_name="fanout")
