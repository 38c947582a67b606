"""Default settings of a search that depend on the losses that a model has."""

from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings, SearchSettings, default_enhance_settings

# Without a whole-way guide, the paper's loss is the scorer.
PAPER_SCORER_SEARCH = default_enhance_settings("paper").search.replace(
    score=1.0, guide=0.0, steps=100, learning_rate=0.3
)

# The scorer of a preference model is smooth but has no prior to stay near: small steps down its score
# alone, smooth over a second, with a weak pull towards no change (`alpha`).
PREFERENCE_SEARCH = SearchSettings(
    score=1.0, guide=0.0, alpha=3e-4, steps=40, learning_rate=0.004, smooth_ms=1000.0
)
PREFERENCE_MAX_GAIN_DB = 12.0  # lower than the default: no folder shows how far recordings differ


def settings_for_model(settings: EnhanceSettings, model: Model) -> EnhanceSettings:
    """Return settings that fit the losses of a model; most are returned unchanged.

    A model trained from preferences alone has no prior and no guide: the mask starts from zero. The
    paper's search follows the scorer if the model has no whole-way guide, or if its weight is 0.
    """
    if settings.method == "paper":
        search = settings.search
        if model.way_guide is not None and search.guide and search.alpha > 0:
            return settings
        adapted = _with_search_defaults(settings, PAPER_SCORER_SEARCH)
        # The gains of notes fool the scorer less than those of all cells.
        return adapted.replace(search=dict(guide=0.0), prior=dict(notes=dict(gains_only=True)))
    if model.learnt_priors is not None or settings.method != "search":
        return settings
    defaults = default_enhance_settings("search")
    adapted = _with_search_defaults(settings, PREFERENCE_SEARCH)
    if settings.render.max_gain_db == defaults.render.max_gain_db:
        adapted = adapted.replace(render=dict(max_gain_db=PREFERENCE_MAX_GAIN_DB))
    if settings.prior.kind == "auto":
        adapted = adapted.replace(prior=dict(kind="none"))
    return adapted


def _with_search_defaults(settings: EnhanceSettings, defaults: SearchSettings) -> EnhanceSettings:
    """Replace the search settings that have the default of their method by other defaults."""
    usual = default_enhance_settings(settings.method).search
    # A value that differs from the default was chosen by the user, and stays.
    changes = {
        name: getattr(defaults, name)
        for name in SearchSettings.model_fields
        if getattr(settings.search, name) == getattr(usual, name)
    }
    return settings.model_copy(update={"search": settings.search.model_copy(update=changes)})
