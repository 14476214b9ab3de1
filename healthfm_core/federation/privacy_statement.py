"""What a study promised to the people that its model is trained on, in one sentence."""

from __future__ import annotations

from healthfm_core.federation.protocol import Study


def privacy_statement(study: Study) -> str:
    """Return what was promised to the people that the model was trained on, from the study."""
    privacy, secure = study.config.privacy, study.config.federation.aggregation.secure
    mechanism, delta = privacy.mechanism, f"δ {privacy.delta:g}"
    unit = "unit: one person's whole record at a site; each site may add more noise, none less"
    if mechanism.per_site_noise and privacy.epsilon is None:
        noise = f"noise multiplier {privacy.noise_multiplier:g}"
        return (
            f"differential privacy ({privacy.mode}) with {noise}, clipping norm "
            f"{privacy.max_grad_norm:g}, {delta}: "
            f"ε depends on a site's size and is in its ledger; {unit}"
        )
    if mechanism.per_site_noise:
        return f"differential privacy ({privacy.mode}), ε {privacy.epsilon:g}, {delta}; {unit}"
    if mechanism.noise_in_sum:
        return (
            f"differential privacy ({privacy.mode}), ε {privacy.epsilon:g}, {delta}; unit: one "
            "person's whole record at a site; the sites share the noise"
        )
    if secure.enabled and secure.epsilon is not None:
        return (
            f"differential privacy of the sums over sites, ε {secure.epsilon:g}, δ "
            f"{secure.delta:g}; unit: one {secure.unit}; the sites share the noise"
        )
    return "the study asked for no differential privacy"
