//! A run of seconds on generated text.

/// Its configuration, as a file.
pub(crate) const CONFIG: &str = r#"
    [model]
    dim = 16
    depth = 2
    [data]
    source = "synthetic:text"
    train_bytes = 20000
    valid_bytes = 4000
    [train]
    steps = 6
    batch_size = 2
    seq_len = 32
    grad_accum = 2
    lr = 1e-3
    log_every = 1
    validate_every = 3
    validate_windows = 4
    checkpoint_every = 3
    sample_every = 0
"#;
