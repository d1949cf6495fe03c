"""The command line: one verb per arrow of the path. Verbs are imported when they are called.

Exit codes: 0 done, 1 a defect of puna, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import difflib
import errno
import os
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter, UnknownCommandError

from puna import __version__
from puna.errors import AlreadyToldError, InputError

app = App(
    name="puna",
    help="Raises a LLaMA: raw text in, a model that you own and can serve out.\n\n"
    "Every command takes --help; --debug shows the traceback of a crash.",
    version=__version__,
    help_format="plaintext",
    default_parameter=Parameter(negative_bool=()),
    suppress_keyboard_interrupt=False,  # it is `run` that says so
)
app.command("puna.cli.curate:curate", sort_key=-6, help="Raw text into a clean corpus.")
app.command("puna.cli.tokenize:tokenize", sort_key=-5, help="Texts into shards of tokens.")
app.command("puna.cli.pretrain:pretrain", sort_key=-4, help="Raise a model from shards.")
app.command("puna.cli.tune:tune", sort_key=-3, help="Teach a model by a recipe, and judge it.")
app.command("puna.cli.evaluate:evaluate", sort_key=-2, help="Judge a model, against another.")
app.command("puna.cli.generate:generate", sort_key=0, help="Continue prompts, or answer them.")
app.command("puna.cli.chat:chat", sort_key=1, help="Talk to a model in the terminal.")
app.command("puna.cli.convert:convert", sort_key=2, help="Change the format, prove it the same.")
app.command("puna.cli.merge:merge", sort_key=3, help="A tuning and its base as one checkpoint.")
app.command("puna.cli.show:show", sort_key=4, help="What a model or a run is, and its lineage.")
app.command("puna.cli.plan:plan", sort_key=4, help="What a run would take, and what would fit.")
app.command("puna.cli.models:models", sort_key=5, help="The models that are here.")
app.command("puna.cli.doctor:doctor", sort_key=6, help="What this machine has and lacks.")


def main() -> None:
    """Run the command line and exit."""
    _let_threads_sleep()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    tokens = [token for token in arguments[:end] if token != "--debug"] + [*arguments[end:]]
    debug = len(tokens) < len(arguments)
    if sys.stdout is None:  # started with it closed
        return _complain("standard output is closed\n  fix: send it to a file, or to /dev/null")
    try:
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except UnknownCommandError:
        return _complain(_unknown(tokens[0]))
    except CycloptsError as error:
        return _complain(f"{error}\n  fix: see puna {_verb(tokens)}--help")
    except AlreadyToldError:
        return 2
    except InputError as error:
        if debug:
            traceback.print_exc()
        return _complain(str(error))
    except KeyboardInterrupt:
        print("\npuna: interrupted", file=sys.stderr)
        return 130
    except (BrokenPipeError, SystemExit):  # the latter is rich's word for the former
        # The reader of our output went away, as `head` does.
        _drop_output()
        return 0
    except GeneratorExit:
        raise
    except BaseException as error:  # a panic of a Rust library is no Exception
        if debug:
            traceback.print_exc()
        if _of_output(error):
            _drop_output()
            return _complain(f"standard output could not be written: {_reason(error)}")
        print(
            f"puna: a defect of ours: {type(error).__name__}: {error} (--debug shows where)",
            file=sys.stderr,
        )
        return 1
    return 0


def _let_threads_sleep() -> None:
    """Where neighbours are busy, threads that wait by spinning are ten times slower.

    OpenMP reads this when torch is imported, which has not happened yet; docs/LOG.md has figures.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _drop_output() -> None:
    """Send what is still buffered nowhere, or the interpreter would complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _of_output(error: BaseException) -> bool:
    """Whether a write to standard output failed: writers of files name their file."""
    full = (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT)
    return isinstance(error, OSError) and error.filename is None and error.errno in full


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _complain(message: str) -> int:
    print(f"puna: {message}", file=sys.stderr)
    return 2


def _unknown(word: str) -> str:
    # The library's own message imports every command, and with them torch.
    verbs = [name for name in app if not name.startswith("-")]
    begun = [verb for verb in verbs if word and verb.startswith(word)]
    near = begun or difflib.get_close_matches(word, verbs, n=1)
    fix = f"did you mean {near[0]!r}?" if near else f"commands are {', '.join(sorted(verbs))}"
    return f"there is no command {word!r}\n  fix: {fix}"


def _verb(tokens: Sequence[str]) -> str:
    return f"{tokens[0]} " if tokens and tokens[0] in list(app) else ""
