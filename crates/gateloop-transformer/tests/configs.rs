//! Every file in `configs/` is a run that starts.

use std::path::Path;

use gateloop_transformer::config::{Config, LossOn, Source};

fn configs() -> Vec<(String, Config)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut configs: Vec<_> = std::fs::read_dir(folder)
        .expect("the workspace has a folder of configs")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            (name, Config::load(&path, &[]).unwrap_or_else(|error| panic!("{error}")))
        })
        .collect();
    configs.sort_by(|a, b| a.0.cmp(&b.0));
    configs
}

fn named(name: &str) -> Config {
    let found = configs().into_iter().find(|(other, _)| other == name);
    found.unwrap_or_else(|| panic!("configs/{name}.toml is missing")).1
}

#[test]
fn every_config_loads_and_loads_back_equal() {
    let configs = configs();
    assert!(configs.len() >= 2);
    for (name, config) in configs {
        let text = config.to_toml().unwrap();
        assert_eq!(Config::from_toml_str(&text, &name, &[]).unwrap(), config);
    }
}

#[test]
fn quick_is_the_small_run() {
    let config = named("quick");
    assert_eq!((config.model.dim, config.model.depth, config.model.head_dim()), (256, 4, 1));
    assert!(!config.model.post_ln_norm && config.model.attn_add_swish_gating);
    assert_eq!((config.train.tokens_per_step(), config.train.steps), (2048, 400));
    assert_eq!((config.train.lr, config.train.clip_norm), (1e-3, 0.5));
}

#[test]
fn the_reference_is_its_training_script() {
    let config = named("enwik8-reference");
    assert_eq!(
        (config.model.dim, config.model.depth, config.model.gate_loop_heads()),
        (512, 6, 512)
    );
    assert!(config.model.post_ln_norm);
    assert_eq!(config.train, gateloop_transformer::config::TrainConfig::default());
    assert_eq!(config.data.source, Source::Enwik8);
}

#[test]
fn the_tasks_learn_answers_alone_in_windows_that_hold_whole_lines() {
    for (name, source, longest_line) in [
        ("memory-horizon", "synthetic:memory_horizon", 3 * (32 + 3)),
        ("selective-copy", "synthetic:selective_copy?len=16&tokens=4", 16 + 1 + 4 + 1),
    ] {
        let config = named(name);
        assert_eq!(config.data.source.to_string(), source);
        assert_eq!(config.train.loss_on, LossOn::Answers);
        assert!(config.train.seq_len >= longest_line);
        assert_eq!((config.model.dim, config.model.depth), (64, 2));
    }
}
