"""Does it run, to its end and in the right modes?"""

import tempfile
from typing import Any

from torchmetrics import Metric, MetricCollection

from linreg.checks.context import Context
from linreg.checks.observer import Observer
from linreg.system.errors import RunError, one_line
from linreg.verdict import CannotTell, Verdict, judge


def a_short_run_ends(context: Context) -> Verdict:
    """Two short epochs, with validation, come to their end without an error."""
    how: dict[str, Any] = {"limit_train_batches": 4, "limit_val_batches": 2}
    most = max(context.flags["max_epochs"] or 2, 2)
    with tempfile.TemporaryDirectory() as folder:
        try:
            context.fit(epochs=2, max_epochs=most, folder=folder, **how)
        except RunError:
            raise  # it diverges, say, of which other checks know more
        except Exception as error:
            remedy = "a fit shows where; detach() what a step keeps of the loss for later ones"
            return judge(False, one_line(error), "no error", remedy)
    return Verdict("ok", "two short ones with validation")


def evaluation_is_evaluation(context: Context) -> Verdict:
    """What is reported is measured in evaluation mode, and with statistics that were gathered in training."""
    found = ["the model is trained in evaluation mode"] * (not context.prepared.training)

    def watch(model: Any, data: Any) -> None:
        step = model.validation_step

        def watched(*args: Any, **kwargs: Any) -> Any:
            for name, m in model.named_modules():
                is_wrong = m.training and not isinstance(m, Metric | MetricCollection)  # which have no modes
                found.extend([f"{name or 'the model'} is in training mode"] * is_wrong)
                is_still = bool(getattr(m, "num_batches_tracked", None) and (m.running_var == 1).all())
                found.extend([f"{name} gathers no statistics"] * is_still)
            with Observer() as observer:
                result = step(*args, **kwargs)
            found.extend(["the model is put in training mode"] * model.training)
            found.extend(["a dropout function drops"] * observer.drops)
            return result

        vars(model)["validation_step"] = watched

    if context.val is context.train:
        raise CannotTell("there are no validation rows")
    context.fit(epochs=1, limit_train_batches=1, limit_val_batches=1, prepare=watch)
    remedy = "leave the mode to Lightning; F.dropout(x, p, self.training); BatchNorm(momentum=0.1)"
    return judge(not found, found[0] if found else "all of it is in evaluation mode", "another", remedy)


RUNNING = [a_short_run_ends, evaluation_is_evaluation]
