//! TOML text to [`Config`], with messages that name the full path of a key.

use toml::{Table, Value};

use super::{Config, ConfigError, suggest};

/// The tables and their keys, as serde knows them; a test holds the two together.
pub(super) const SECTIONS: [(&str, &[&str]); 5] = [
    (
        "model",
        &[
            "num_tokens",
            "dim",
            "depth",
            "ff_mult",
            "layers",
            "use_gate_looped_attn",
            "gate_loop_heads",
            "direct_kv",
            "dim_gate_looped_attn",
            "gate_loop_form",
            "checkpoint_gate_looped_attn",
            "dim_head",
            "heads",
            "rotary_emb",
            "attention_window",
            "simple_gate_loop_before_attention",
            "attn_softmax_normalize",
            "data_dependent_rel_pos",
            "rel_pos",
            "attn_add_swish_gating",
            "post_ln_norm",
            "sub_ln",
            "ablate_complex",
            "ablate_state_transition",
            "frac_gradient_state_transition",
            "state_transition_bias",
            "tie_embedding",
            "gelu",
            "rms_norm",
        ],
    ),
    ("data", &["source", "documents", "tokenizer", "train_bytes", "valid_bytes"]),
    (
        "train",
        &[
            "steps",
            "batch_size",
            "seq_len",
            "grad_accum",
            "window_order",
            "carry_state",
            "recompute",
            "loss_on",
            "lr",
            "schedule",
            "warmup_steps",
            "min_lr",
            "transition_lr_frac",
            "beta1",
            "beta2",
            "eps",
            "weight_decay",
            "clip_norm",
            "ema_decay",
            "seed",
            "log_every",
            "norms_every",
            "gates_every",
            "validate_every",
            "validate_windows",
            "checkpoint_every",
            "keep_checkpoints",
            "sample_every",
            "tensorboard",
            "threads",
            "device",
            "precision",
        ],
    ),
    (
        "dist",
        &["sequence_ranks", "shard_optimizer", "timeout_s", "check_every", "bucket_mb", "backend"],
    ),
    (
        "generate",
        &[
            "tokens",
            "temperature",
            "filter_thres",
            "top_k",
            "top_p",
            "min_p",
            "repetition_penalty",
            "repetition_window",
            "stop",
            "seed",
            "weights",
        ],
    ),
];

/// Parses the text and refuses every key that is not known.
pub(super) fn tables(text: &str, origin: &str) -> Result<Table, ConfigError> {
    let tables: Table = toml::from_str(text).map_err(|error| ConfigError::Syntax {
        origin: origin.to_owned(),
        message: error.to_string().trim_end().to_owned(),
    })?;
    for (section, value) in &tables {
        let Value::Table(table) = value else {
            return Err(not_a_table(section, value, origin));
        };
        if keys_of(section).is_none() {
            return Err(unknown(section, origin));
        }
        for key in table.keys() {
            check_known(section, key, origin)?;
        }
    }
    Ok(tables)
}

/// Errs unless `section.key` exists.
pub(super) fn check_known(section: &str, key: &str, origin: &str) -> Result<(), ConfigError> {
    if keys_of(section).is_some_and(|keys| keys.contains(&key)) {
        Ok(())
    } else {
        Err(unknown(&format!("{section}.{key}"), origin))
    }
}

/// Builds the typed configuration from tables whose keys are known.
pub(super) fn config(tables: Table, origin: &str) -> Result<Config, ConfigError> {
    match Value::Table(tables.clone()).try_into() {
        Ok(config) => Ok(config),
        Err(error) => Err(blame(tables, origin, &error)),
    }
}

/// Finds the key whose value does not fit: every key has a default, so each can be tried alone.
fn blame(tables: Table, origin: &str, whole: &toml::de::Error) -> ConfigError {
    let bad = |key: String, error: &toml::de::Error| ConfigError::BadValue {
        origin: origin.to_owned(),
        key,
        message: in_words(error.message()),
    };
    for (section, value) in tables {
        let Value::Table(table) = value else { continue };
        for (key, value) in table {
            let single = Table::from_iter([(key.clone(), value)]);
            let alone = Table::from_iter([(section.clone(), Value::Table(single))]);
            if let Err(error) = Value::Table(alone).try_into::<Config>() {
                return bad(format!("{section}.{key}"), &error);
            }
        }
    }
    bad("(unknown)".to_owned(), whole)
}

/// serde's message without the names of Rust's types, which a user need not know.
fn in_words(message: &str) -> String {
    [
        ("usize", "a whole number, 0 or more"),
        ("u64", "a whole number, 0 or more"),
        ("f64", "a number"),
    ]
    .iter()
    .fold(message.to_owned(), |message, (name, words)| {
        message.replace(&format!("expected {name}"), &format!("expected {words}"))
    })
}

fn keys_of(section: &str) -> Option<&'static [&'static str]> {
    SECTIONS.iter().find(|(name, _)| *name == section).map(|(_, keys)| *keys)
}

/// A value outside the tables: a key that lost its table, or a table that is given as a value.
fn not_a_table(name: &str, value: &Value, origin: &str) -> ConfigError {
    if keys_of(name).is_some() {
        ConfigError::BadValue {
            origin: origin.to_owned(),
            key: name.to_owned(),
            message: format!("found {}, expected the table [{name}]", value.type_str()),
        }
    } else {
        unknown(name, origin)
    }
}

fn unknown(path: &str, origin: &str) -> ConfigError {
    ConfigError::UnknownKey { origin: origin.to_owned(), key: path.to_owned(), hint: hint(path) }
}

fn hint(path: &str) -> String {
    let (section, key) = path.split_once('.').unwrap_or(("", path));
    if let Some(keys) = keys_of(section) {
        if let Some(name) = suggest::nearest(key, keys.iter().copied()) {
            return format!("did you mean `{section}.{name}`?");
        }
        // Right name, wrong table.
        if let Some((other, _)) = SECTIONS.iter().find(|(_, keys)| keys.contains(&key)) {
            return format!("did you mean `{other}.{key}`?");
        }
        return format!("the keys of [{section}] are {}", keys.join(", "));
    }
    let sections = SECTIONS.map(|(name, _)| name);
    let word = if section.is_empty() { key } else { section };
    if let Some(name) = suggest::nearest(word, sections) {
        return if section.is_empty() {
            format!("did you mean `[{name}]`?")
        } else {
            format!("did you mean `{name}.{key}`?")
        };
    }
    if let Some((other, _)) = SECTIONS.iter().find(|(_, keys)| keys.contains(&key)) {
        return format!("did you mean `{other}.{key}`?");
    }
    format!("the tables are [{}]", sections.join("], ["))
}
