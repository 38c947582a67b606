"""Rows about what new users meet."""

import shutil

from campaigns.harness.reports.files import MODEL, make_recipe
from campaigns.harness.reports.rows import Outcome, Row, Workplace


def missing_media_extra(place: Workplace) -> Outcome:
    """Try a .m4a without PyAV."""
    folder = place.folder / "phone"
    folder.mkdir()
    shutil.copy(place.input("apple/take.wav"), folder)
    shutil.copy(place.input("collide/take.m4a"), folder / "other.m4a")
    code = (
        "import sys; sys.modules['av'] = None\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'av' else find(n, *a)\n"
        "import tonewood.cli as c; sys.argv[0] = 'tonewood'; c.main()"
    )
    done = place.python(code, "score", folder, *MODEL)
    return Outcome(done.summary, "left out" in done.text or "PyAV" in done.text)


def empty_path(place: Workplace) -> Outcome:
    """Try an empty path."""
    shutil.copy(place.input("apple/take.wav"), place.folder)
    done = place.run("enhance", "", "-o", "out", *MODEL, "--steps", "0")
    return Outcome(done.summary, done.code == 2 and not place.outputs())


def named_model(place: Workplace) -> Outcome:
    """Try the model of a result."""
    done = place.run("enhance", place.input("apple/take.wav"), "-o", "out", *MODEL, "--steps", "0")
    return Outcome(done.summary, "soundfont-cello" in done.out)


def half_amount(place: Workplace) -> Outcome:
    """Try half the correction."""
    done = place.run("enhance", place.input("apple/take.wav"), "-o", "out", *MODEL, "--amount", "0.5")
    return Outcome(done.summary, done.code == 0 and "limited" not in done.out)


def version_options(place: Workplace) -> Outcome:
    """Try version and help."""
    done = [
        place.run("--version"),
        place.run("-h"),
        place.python("import tonewood; print(tonewood.__version__)"),
    ]
    return Outcome("; ".join(each.summary for each in done), all(each.code == 0 for each in done))


def quiet_option(place: Workplace) -> Outcome:
    """Try short output of long runs."""
    done = place.run("enhance", place.input("quiet"), "-o", "out", *MODEL, "--steps", "0", "--quiet")
    return Outcome(done.summary, done.code == 0 and len(done.out.splitlines()) <= 5)


def dry_run(place: Workplace) -> Outcome:
    """Try an inventory and a dry run."""
    listed = place.run("inventory", place.input("sizes"))
    dry = place.run("enhance", place.input("quiet"), "-o", "out", *MODEL, "--dry-run")
    right = listed.is_plain and listed.code in (0, 1) and dry.code == 0 and not place.outputs()
    return Outcome(f"inventory {listed.summary}; dry run {dry.summary}", right)


def misspelt_setting(place: Workplace) -> Outcome:
    """Try a misspelt setting."""
    take = place.input("apple/take.wav")
    done = place.run("enhance", take, "-o", "out", *MODEL, "--set", "search.alfa=1")
    return Outcome(done.summary, "search.alpha" in done.err)


def options_in_errors(place: Workplace) -> Outcome:
    """Try words of errors."""
    take = place.input("apple/take.wav")
    amount = place.run("enhance", take, "-o", "out", *MODEL, "--amount", "50")
    diff = place.run("diff", take, take)
    return Outcome(
        f"{amount.last_line} | {diff.last_line}", "--amount" in amount.err and "recipe" in diff.err
    )


def short_repr(place: Workplace) -> Outcome:
    """Try results in Python."""
    code = (
        "import sys, soundfile, tonewood; x, r = soundfile.read(sys.argv[1], dtype='float32')\n"
        "e = tonewood.enhance(x, r, 'soundfont-cello', amount=0.5, method='predicted'); print(len(repr(e)))"
    )
    done = place.python(code, place.input("apple/take.wav"))
    return Outcome(done.last_line, done.code == 0 and int(done.out) < 400)


def new_folder(place: Workplace) -> Outcome:
    """Try one rule for -o."""
    recipe = make_recipe(place)
    done = place.run("render", recipe, place.input("apple/take.wav"), "-o", "newfolder")
    return Outcome(done.summary, done.code == 0 and (place.folder / "newfolder").is_dir())


ROWS = (
    Row("30", "a .m4a without the extra media", "told", missing_media_extra),
    Row("31", 'enhance ""', "refused", empty_path),
    Row("32", "the model of a result", "named", named_model),
    Row("33", "--amount 0.5", "not limited", half_amount),
    Row("37", "--version, -h, __version__", "there", version_options),
    Row("39", "--quiet", "few lines", quiet_option),
    Row("41", "inventory, --dry-run", "there", dry_run),
    Row("42", "search.alfa=1", "a suggestion", misspelt_setting),
    Row("43", "words of errors", "the option that was typed", options_in_errors),
    Row("44", "print(enhanced); amount=, method=", "short; keywords", short_repr),
    Row("46", "render -o newfolder", "made", new_folder),
)
