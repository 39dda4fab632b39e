"""What other libraries say, where nothing but their words tells one error or warning from another.

``tests/test_messages.py`` provokes each, and so notices when a library has found other words.
"""

import re

LOST_PROCESS = (  # gloo, and torch; the last two after half an hour without a word
    *("Connection closed by peer", "Connection reset by peer", "DataLoader worker"),
    *("Timed out waiting", "timeout caused pair closure"),
)
OF_A_PROCESS = "Traceback (most recent call last)"  # torch, of what another process has raised
NO_COMPILER = "No working C++ compiler"  # torch, of a module that is to be compiled
UNSAFE_PICKLE = ("GLOBAL ", "unrecognized function")  # torch, of code in a checkpoint
DENIED_IMPORT = re.compile(r"Importing '([\w.]+)' is not allowed")  # jsonargparse
NO_CLASS = re.compile(r"Expected a dot import path string: (\w+)")  # jsonargparse
NO_ATTRIBUTE = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'")  # Python, of a class in a config
UNKNOWN_NAME = re.compile(r"--([\w.]+)|(?:[Kk]ey|[Oo]ption) [\"']([\w.]+)[\"']")  # jsonargparse
# How lines of jsonargparse's begin that are of no use:
TRIED_TYPES = ("Does not validate", "Subtypes:", "Errors:", "Given value type:", "Expected a <class 'lightning")

REMEDIES = {  # of errors that torch and Lightning raise, in a model of one's own or before it
    "backend found": "leave out --accelerator, or give cpu",  # of a GPU that is not there
    "Expected more than 1 value per channel": "batch norm cannot take a batch of one row; leave out the last, smaller "
    "batch with --data.drop_last true, or give another --data.batch_size",
    "does not require grad": "the loss does not depend on any weight; return it as it was computed, without .detach(), "
    ".item() or torch.no_grad()",
    "parameters that were not used in producing": "give --strategy ddp_find_unused_parameters_true",
    "can be implicitly created only for scalar": "a loss is one number, a mean over rows; return its .mean()",
    **dict.fromkeys(  # of a linear layer, a norm, a convolution, a recurrent one, that of torch 2.6
        ("same dtype, but got Double", "mixed dtype (CPU)", "Input type (double)", "RNN input dtype (torch.float64)")
        + ("got type torch.float64",),
        "the batch is float64 and the model float32; call x.to(self.dtype) first",
    ),
    "must be Tensor, not list": "rows are to hold tensors, not lists; a datasets.Dataset does .with_format('torch')",
    "no `dataloader_idx` argument": "of several loaders each step is told which one it is",
    "values cannot be logged": "log a number, or a tensor of one",
    "the tensor must have a single element": "log one number",
    "by returning None in distributed": "the other processes wait; give a loss of 0 times the output instead",
    "does not have a deterministic implementation": "give --deterministic warn, and it will do without",
    "You requested to check": "a share has to make a batch of each split, and --overfit_batches is of each; of a table "
    "validation is one batch: give a whole number",
    "The specified number of total steps is": "leave total_steps out, and the run's own are counted; or give more",
    "EADDRINUSE": "a program listens at that port, MASTER_PORT; leave it out, or give another one",
    "more than one `__init__` argument can be passed": "name its arguments: DataLoader(rows, batch_size=32)",
}

# Warnings, each as a pattern.
READ_ONLY_ARRAY = "The given NumPy array is not writable"  # torch
MISSING_GLYPH = "Glyph .* missing from"  # matplotlib
EXPECTED = (  # of Lightning, where a run here does just that
    "Experiment logs directory .* exists and is not empty",  # that of a run, in which its other records lie
    "Checkpoint directory .* exists and is not empty",  # a resumed run goes on in its own folder
    "The number of training batches .* is smaller than the logging interval",  # it has its curves all the same
    "You're resuming from a checkpoint that ended before the epoch ended",  # it goes on behind the batches it has seen
    "Be aware that when using `ckpt_path`",  # callbacks may be left out: a run that goes on says what differs
    "You requested to overfit but enabled",  # rows that are not shuffled are what --overfit_batches means
)
OF_NO_USE = (  # here
    r"`isinstance\(treespec, LeafSpec\)`",  # torch 2.13, of Lightning 2.6.6
    "GPU available but not used",  # Lightning, of --accelerator cpu
    ".* does not have many workers which may be a bottleneck",  # Lightning, of any; the doctor measures it
    "It is recommended to use .*sync_dist=True",  # Lightning, where it is, or there is one process only
    "The AccumulateGrad node's stream does not match",  # torch, of how Lightning sets up DDP on a GPU
)
