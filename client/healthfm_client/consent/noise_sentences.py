"""What a run's noise promises a person of the site, in a sentence."""

from __future__ import annotations

import math
from typing import Final

from healthfm_client.privacy_accounting.site_privacy import SitePrivacy
from healthfm_core.config.privacy_mechanisms import MECHANISMS, hides_each_person
from healthfm_core.trust.contract import ContractTerms

_ANY_EPSILON: Final = (
    "site.yaml sets no privacy.epsilon, so that any cost is taken, noise that hides nobody too"
)


def noise_sentence(terms: ContractTerms, rules: SitePrivacy) -> str:
    """Return what a run's noise promises a person here, with its ε and δ."""
    asked, most = terms.privacy, rules.epsilon
    mode = MECHANISMS.get(str(asked.get("mode", "off")))
    secure = terms.config.get("federation", {}).get("aggregation", {}).get("secure", {})
    if hides_each_person(asked) and asked.get("epsilon") is None:
        limit = f"a cost of more than ε {most:g} is refused" if most else _ANY_EPSILON
        return (
            f"Noise of {float(asked.get('noise_multiplier') or 0):g} times what one person may "
            "change is added here. What it hides depends on this site's people and is counted "
            f"before the first round: {limit}."
        )
    if hides_each_person(asked):
        epsilon = min(float(asked["epsilon"]), most or math.inf)
        delta = min(float(asked.get("delta", rules.delta)), rules.delta)
        return f"Noise is added here. {_meaning(epsilon, delta)}"
    if rules.mode == "dp" and most is not None:
        return f"Noise is added here, as site.yaml wants. {_meaning(most, rules.delta)}"
    if mode is not None and mode.noise_in_sum:
        said = _meaning(float(asked["epsilon"]), float(asked.get("delta", rules.delta)))
        return f"The sites add noise together, and it hides less where others add none. {said}"
    if terms.sums_only and secure.get("epsilon") is not None:
        said = _meaning(float(secure["epsilon"]), float(secure["delta"]))
        return f"Noise is added to the sum over sites, for each {secure['unit']}. {said}"
    return (
        "No noise is added: changes of a model are known to tell a little about the people it was "
        "trained on."
    )


def epsilon_asked(terms: ContractTerms, rules: SitePrivacy) -> float | None:
    """Return the ε that the whole run may cost a person here; None where it names none."""
    asked = terms.privacy
    secure = terms.config.get("federation", {}).get("aggregation", {}).get("secure", {})
    mode = MECHANISMS.get(str(asked.get("mode", "off")))
    if (mode is not None and mode.is_private) and asked.get("epsilon") is not None:
        return min(float(asked["epsilon"]), rules.epsilon or math.inf)
    if terms.sums_only and secure.get("epsilon") is not None:
        return float(secure["epsilon"])
    return rules.epsilon if rules.mode == "dp" else None


def _meaning(epsilon: float, delta: float) -> str:
    """Return what ε says of an attacker who held it as likely as not; 10 and more says little."""
    sure = 100 / (1 + math.exp(-epsilon))
    how_sure = f"{sure:.2f} % sure" if sure < 99.99 else "all but certain"
    worth = " That is no protection to rely on." if epsilon > 10 else ""
    return (
        f"It promises ε {epsilon:g} (δ {delta:g}) for the whole run: who held it as likely as not "
        f"that somebody took part can be {how_sure} of it afterwards.{worth}"
    )
