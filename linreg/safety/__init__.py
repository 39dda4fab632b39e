"""What a stranger's file may hold and name, since any config or checkpoint may be one.

In: the text of a config, the path of a checkpoint. Out: their content, no code of which has run, or an InputError.
Read ``allowed`` (which classes), ``safe_yaml`` (which YAML), ``checkpoint_file``.
"""
