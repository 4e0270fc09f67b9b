"""`mmssl doctor`: one screen about this machine and this installation, and what is wrong with them."""

import dataclasses

import typer

from commands import messages
from commands.app import app
from commands.options import WORKSPACE, Json, Root, Scheduler
from pipeline.runtime.errors import Interrupted, MmsslError


@app.command()
def doctor(root: Root = WORKSPACE, scheduler: Scheduler = None, as_json: Json = False) -> None:
    """Show what a maintainer would ask about this machine, and what is wrong with it, with the command that mends it.

    Nothing is changed. The exit code is 1 if something is wrong.
    """
    from commands import doctor_checks

    found = list(doctor_checks.facts(root))
    if scheduler is not None:
        try:
            found += doctor_checks.workers(scheduler, root)
        except Interrupted:
            raise
        except MmsslError as error:
            found.append(doctor_checks.Fact("scheduler", scheduler, error.message, error.hint))
    wrong = [fact for fact in found if fact.problem]
    if as_json:
        messages.as_json({"facts": [dataclasses.asdict(fact) for fact in found], "wrong": len(wrong)})
    else:
        table = messages.Table("", "")
        table.box, table.show_header = None, False
        for fact in found:
            table.add_row(messages.styled(fact.name, "bold"), fact.value)
        messages.show(table)
        for fact in wrong:
            messages.say(f"wrong: {fact.name}: {fact.problem}")
            if fact.fix:
                messages.say(f"  mend it: {fact.fix}")
        messages.say(f"{len(wrong)} wrong" if wrong else "nothing is wrong")
    if wrong:
        raise typer.Exit(1)
