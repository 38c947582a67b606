"""Settings that fit models which were trained from preferences alone."""

from tonewood.model.model import Model
from tonewood.settings import EnhanceSettings, SearchSettings

# The scorer of a preference model is smooth but has no prior to stay near: small steps down its score
# alone, smooth over a second, with a weak pull towards no change (`alpha`).
PREFERENCE_SEARCH = SearchSettings(
    score=1.0, guide=0.0, alpha=3e-4, steps=40, learning_rate=0.004, smooth_ms=1000.0
)
PREFERENCE_MAX_GAIN_DB = 12.0  # lower than the default: no folder shows how far recordings differ


def settings_for_preference_model(settings: EnhanceSettings, model: Model) -> EnhanceSettings:
    """Return settings that fit a model trained from preferences alone; others are returned unchanged.

    Such a model has no prior and no guide. The mask starts from zero, and every search setting that
    has its default value becomes that of `PREFERENCE_SEARCH`.
    """
    if model.learnt_priors is not None or settings.method != "search":
        return settings
    defaults = EnhanceSettings()
    # A value that differs from the default was chosen by the user, and stays.
    search = {
        name: getattr(PREFERENCE_SEARCH, name)
        for name in SearchSettings.model_fields
        if getattr(settings.search, name) == getattr(defaults.search, name)
    }
    adapted = settings.model_copy(update={"search": settings.search.model_copy(update=search)})
    if settings.render.max_gain_db == defaults.render.max_gain_db:
        adapted = adapted.replace(render=dict(max_gain_db=PREFERENCE_MAX_GAIN_DB))
    if settings.prior.kind == "auto":
        adapted = adapted.replace(prior=dict(kind="none"))
    return adapted
