//! Tests of the configuration.

use super::*;

fn load(text: &str) -> Result<Config, ConfigError> {
    Config::from_toml_str(text, "test.toml", &[])
}

fn with(overrides: &[&str]) -> Result<Config, ConfigError> {
    let overrides: Vec<_> = overrides.iter().map(|text| (*text).to_owned()).collect();
    Config::from_toml_str("", "test.toml", &overrides)
}

fn message(result: Result<Config, ConfigError>) -> String {
    result.unwrap_err().to_string()
}

/// A configuration in which every optional key is set.
fn full() -> Config {
    let mut config = Config::default();
    config.model.gate_loop_heads = Some(64);
    config.model.dim_gate_looped_attn = Some(128);
    config.model.attn_softmax_normalize = Some(true);
    config.model.layers = vec![LayerKind::GateLoop, LayerKind::Attention];
    config.data = DataConfig {
        source: "a file.txt".parse().unwrap(),
        documents: Some("separator:\n\n".parse().unwrap()),
        tokenizer: Some("a tokenizer.json".into()),
        train_bytes: Some(9),
        valid_bytes: Some(1),
    };
    config.train.eps = 1e-8;
    config.train.lr = 3.3e-4;
    config.generate.seed = Some(7);
    config.generate.top_k = Some(40);
    config.generate.stop = vec!["\n\n".to_owned()];
    config
}

#[test]
fn an_empty_text_is_the_reference() {
    let config = load("").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!((config.model.num_tokens, config.model.dim, config.model.depth), (256, 512, 6));
    assert_eq!(
        (config.model.gate_loop_heads(), config.model.inner_dim(), config.model.head_dim()),
        (512, 512, 1)
    );
    assert_eq!(config.train.tokens_per_step(), 4096);
    assert_eq!(config.generate.kept(256), 26);
    assert_eq!(config.data.source, Source::Enwik8);
}

#[test]
fn the_list_of_keys_is_that_of_the_structs() {
    let toml::Value::Table(tables) = toml::Value::try_from(full()).unwrap() else { panic!() };
    let mut listed: Vec<_> = parse::SECTIONS
        .iter()
        .flat_map(|(section, keys)| keys.iter().map(move |key| format!("{section}.{key}")))
        .collect();
    let mut real: Vec<_> = tables
        .iter()
        .flat_map(|(section, table)| {
            table.as_table().unwrap().keys().map(move |key| format!("{section}.{key}"))
        })
        .collect();
    listed.sort();
    real.sort();
    assert_eq!(listed, real);
}

#[test]
fn options_that_contradict_each_other_are_both_named() {
    for (overrides, names) in [
        (
            &["train.min_lr=1e-3", "train.schedule=cosine"][..],
            ["train.min_lr = 1e-3", "train.lr = 1e-4"],
        ),
        (&["train.min_lr=1e-5"], ["train.min_lr = 1e-5", "train.schedule = \"constant\""]),
        (
            &["train.warmup_steps=400", "train.steps=400"],
            ["train.warmup_steps = 400", "train.steps = 400"],
        ),
        (
            &["train.carry_state=true"],
            ["train.carry_state = true", "train.window_order = \"random\""],
        ),
        (
            &[
                "train.carry_state=true",
                "train.window_order=sequential",
                "model.layers=[\"attention\"]",
            ],
            ["train.carry_state = true", "model.layers = [attention]"],
        ),
        (
            &["train.carry_state=true", "train.window_order=sequential", "train.recompute=true"],
            ["train.carry_state = true", "train.recompute = true"],
        ),
        (
            &["model.simple_gate_loop_before_attention=true"],
            ["model.simple_gate_loop_before_attention = true", "model.use_gate_looped_attn = true"],
        ),
        (
            &["model.direct_kv=true", "model.gate_loop_heads=8"],
            ["model.direct_kv = true", "model.gate_loop_heads = 8"],
        ),
        (
            &[
                "model.data_dependent_rel_pos=true",
                "model.layers=[\"gate_loop\", \"sliding_window_attention\"]",
            ],
            ["model.data_dependent_rel_pos = true", "sliding_window_attention"],
        ),
        (
            &[
                "train.carry_state=true",
                "train.window_order=sequential",
                "data.documents=files",
                "model.layers=[\"sliding_window_attention\"]",
            ],
            ["train.carry_state = true", "data.documents = \"files\""],
        ),
        (
            &["train.loss_on=answers", "data.source=synthetic:text"],
            ["train.loss_on = \"answers\"", "data.source = \"synthetic:text\""],
        ),
        (
            &["data.tokenizer=some.json", "data.source=synthetic:copy"],
            ["data.tokenizer = \"some.json\"", "data.source = \"synthetic:copy\""],
        ),
        (
            &["generate.top_k=5", "generate.filter_thres=0.5"],
            ["generate.top_k = 5", "generate.filter_thres = 0.5"],
        ),
    ] {
        let message = with(overrides).unwrap_err().to_string();
        for name in names {
            assert!(message.contains(name), "{message}");
        }
    }
    assert!(with(&["train.min_lr=1e-5", "train.schedule=linear"]).is_ok());
}

#[test]
fn what_is_written_loads_back_equal() {
    for config in
        [Config::default(), full(), with(&["model.dim=624", "data.source=synthetic:copy"]).unwrap()]
    {
        let text = config.to_toml().unwrap();
        assert_eq!(load(&text).unwrap(), config, "{text}");
    }
}

#[test]
fn a_written_default_names_every_key_that_has_one() {
    let text = Config::default().to_toml().unwrap();
    assert!(text.contains("ff_mult = 4") && text.contains("keep_checkpoints = 3"), "{text}");
    assert!(!text.contains("gate_loop_heads"), "{text}");
}

#[test]
fn overrides_are_toml_values_or_bare_strings_and_the_last_wins() {
    let config = with(&[
        "train.steps=100",
        "train.steps = 1_000",
        "train.lr=1e-3",
        "data.source=synthetic:text",
        "model.post_ln_norm=true",
        "generate.temperature=0",
    ])
    .unwrap();
    assert_eq!((config.train.steps, config.train.lr), (1000, 1e-3));
    assert_eq!(config.data.source, Source::Synthetic(Synthetic::Text));
    assert!(config.model.post_ln_norm);
    let config = with(&["data.source=\"texts/a = b.txt\""]).unwrap();
    assert_eq!(config.data.source, Source::File("texts/a = b.txt".into()));
    let config = with(&["data.source=/some/where else.txt"]).unwrap();
    assert_eq!(config.data.source.to_string(), "/some/where else.txt");
}

#[test]
fn an_override_wins_over_the_file() {
    let overrides = ["model.dim=128".to_owned()];
    let config = Config::from_toml_str("[model]\ndim = 64\ndepth = 2", "f", &overrides).unwrap();
    assert_eq!((config.model.dim, config.model.depth), (128, 2));
}

#[test]
fn malformed_overrides_say_what_is_missing() {
    for (text, problem) in [
        ("train.steps", "there is no `=`"),
        ("steps=3", "names no table"),
        ("train.steps=", "there is no value"),
        ("", "there is no `=`"),
    ] {
        let message = message(with(&[text]));
        assert!(message.contains(problem) && message.contains("train.steps=100"), "{message}");
    }
}

#[test]
fn unknown_keys_are_named_in_full_with_the_nearest() {
    for (text, key, hint) in [
        ("[model]\ndimm = 3", "`model.dimm`", "did you mean `model.dim`?"),
        (
            "[train]\nlearning_rate = 3",
            "`train.learning_rate`",
            "the keys of [train] are steps, batch_size",
        ),
        (
            "[train]\nfilter_thres = 3",
            "`train.filter_thres`",
            "did you mean `generate.filter_thres`?",
        ),
        ("[trian]\nsteps = 3", "`trian`", "did you mean `[train]`?"),
        (
            "[optimiser]\nlr = 3",
            "`optimiser`",
            "the tables are [model], [data], [train], [dist], [generate]",
        ),
        ("dim = 3", "`dim`", "did you mean `model.dim`?"),
    ] {
        let message = message(load(text));
        assert!(message.contains("test.toml: unknown key"), "{message}");
        assert!(message.contains(key) && message.contains(hint), "{message}");
    }
    for (text, hint) in [
        ("train.stesp=3", "did you mean `train.steps`?"),
        ("trian.steps=3", "did you mean `train.steps`?"),
        ("optimiser.lr=3", "did you mean `train.lr`?"),
        ("model.dim.x=3", "the keys of [model] are"),
    ] {
        let message = message(with(&[text]));
        assert!(
            message.contains(&format!("override `{text}`")) && message.contains(hint),
            "{message}"
        );
    }
}

#[test]
fn values_of_the_wrong_type_name_their_key() {
    for (text, key) in [
        ("[model]\ndepth = 2\ndim = \"big\"", "`model.dim`"),
        ("[train]\nsteps = -1", "`train.steps`"),
        ("[train]\nbatch_size = 1.5", "`train.batch_size`"),
        ("[model]\npost_ln_norm = 1", "`model.post_ln_norm`"),
        ("model = 3", "`model`"),
        ("[data]\nsource = 3", "`data.source`"),
        ("[data]\nsource = \"\"", "`data.source`"),
        ("[data]\nsource = \"synthetic:txet\"", "did you mean `text`?"),
        (
            "[data]\nsource = \"synthetic:parity\"",
            "there are: text, copy, selective_copy, recall, induction_heads, memory_horizon",
        ),
    ] {
        let message = message(load(text));
        assert!(message.contains("test.toml: ") && message.contains(key), "{message}");
    }
}

#[test]
fn types_are_told_in_words() {
    for (text, words) in
        [("train.steps=-1", "a whole number, 0 or more"), ("train.lr=fast", "a number")]
    {
        let message = message(with(&[text]));
        assert!(message.ends_with(&format!("expected {words}")), "{message}");
    }
}

#[test]
fn broken_toml_is_an_error_with_a_place() {
    let message = message(load("[model]\ndim = = 3"));
    assert!(message.contains("test.toml") && message.contains("line 2"), "{message}");
}

#[test]
fn ranges_name_the_key_the_value_and_what_is_allowed() {
    for (text, key) in [
        ("train.steps=0", "`train.steps` = 0"),
        ("train.batch_size=0", "`train.batch_size` = 0"),
        ("train.seq_len=0", "`train.seq_len` = 0"),
        ("train.grad_accum=0", "`train.grad_accum` = 0"),
        ("train.lr=0", "`train.lr` = 0"),
        ("train.lr=nan", "`train.lr` = NaN"),
        ("train.lr=inf", "`train.lr` = inf"),
        ("train.beta1=1.0", "`train.beta1` = 1"),
        ("train.beta2=-0.1", "`train.beta2` = -0.1"),
        ("train.eps=0", "`train.eps` = 0"),
        ("train.weight_decay=-1", "`train.weight_decay` = -1"),
        ("train.clip_norm=-0.5", "`train.clip_norm` = -0.5"),
        ("train.validate_windows=0", "`train.validate_windows` = 0"),
        ("train.threads=100000", "`train.threads` = 100000"),
        ("model.num_tokens=0", "`model.num_tokens` = 0"),
        ("model.dim=0", "`model.dim` = 0"),
        ("model.depth=0", "`model.depth` = 0"),
        ("model.gate_loop_heads=0", "`model.gate_loop_heads` = 0"),
        (
            "model.frac_gradient_state_transition=1.5",
            "`model.frac_gradient_state_transition` = 1.5",
        ),
        ("data.train_bytes=0", "`data.train_bytes` = 0"),
        ("generate.tokens=0", "`generate.tokens` = 0"),
        ("generate.temperature=-1", "`generate.temperature` = -1"),
        ("generate.filter_thres=1.0", "`generate.filter_thres` = 1"),
    ] {
        let message = message(with(&[text]));
        assert!(message.contains(key) && message.contains("allowed:"), "{message}");
    }
    for text in
        ["train.log_every=0", "train.sample_every=0", "train.clip_norm=0", "train.threads=0"]
    {
        with(&[text]).unwrap();
    }
}

#[test]
fn heads_that_do_not_divide_are_told_the_divisors_nearby() {
    let message = message(with(&["model.dim=624", "model.gate_loop_heads=100"]));
    assert!(message.contains("= 100 does not divide the inner dimension 624"), "{message}");
    assert!(message.contains("nearby divisors: 52, 78, 104, 156"), "{message}");
    let config = with(&["model.dim_gate_looped_attn=128", "model.gate_loop_heads=32"]).unwrap();
    assert_eq!((config.model.inner_dim(), config.model.head_dim()), (128, 4));
}

#[test]
fn layers_repeat_and_an_empty_list_follows_the_reference() {
    use LayerKind::{Attention, GateLoop, SimpleGateLoop};
    let config = with(&["model.layers=[\"simple_gate_loop\", \"attention\"]", "model.depth=3"]);
    let model = config.unwrap().model;
    assert_eq!([0, 1, 2].map(|n| model.layer(n)), [SimpleGateLoop, Attention, SimpleGateLoop]);
    assert!(model.has(Attention) && !model.has(GateLoop));
    let model = with(&["model.use_gate_looped_attn=false"]).unwrap().model;
    assert_eq!(model.layer(5), Attention);
    assert_eq!(ModelConfig::default().layer(0), GateLoop);
    let message = message(with(&["model.layers=[\"gateloop\"]"]));
    assert!(message.contains("model.layers") && message.contains("`gate_loop`"), "{message}");
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let attention = ["model.use_gate_looped_attn=false", "model.dim_head=7"];
    with(&attention).unwrap();
    for option in ["rotary_emb", "data_dependent_rel_pos"] {
        let option_on = format!("model.{option}=true");
        let message = message(with(&[attention[0], attention[1], &option_on]));
        assert!(message.contains("dim_head` = 7 is odd") && message.contains(option), "{message}");
    }
    let scan = "model.gate_loop_form=scan";
    with(&[scan]).unwrap();
    let message = message(with(&[scan, "model.gate_loop_heads=8"]));
    assert!(message.contains("heads of width 1"), "{message}");
}

#[test]
fn a_difference_names_the_keys_and_both_values() {
    let ours = ModelConfig { dim: 256, ..ModelConfig::default() };
    let spelled = ModelConfig { gate_loop_heads: Some(256), ..ours.clone() };
    assert!(ours.diff(&spelled).is_empty());
    let theirs = ModelConfig { depth: 4, gate_loop_heads: Some(64), ..ours.clone() };
    let expected = [("depth", "6", "4"), ("gate_loop_heads", "256", "64")];
    let expected =
        expected.map(|(key, our, their)| (key.to_owned(), our.to_owned(), their.to_owned()));
    assert_eq!(ours.diff(&theirs), expected);
}

#[test]
fn seeds_that_toml_cannot_hold_are_refused() {
    let mut config = Config::default();
    config.train.seed = u64::MAX;
    assert!(config.validate().unwrap_err().to_string().contains("train.seed"));
}

#[test]
fn a_missing_file_is_named() {
    let message = Config::load("no/such.toml", &[]).unwrap_err().to_string();
    assert!(message.contains("no/such.toml"), "{message}");
}

#[test]
fn documents_are_files_or_have_a_separator() {
    let documents = |text: &str| {
        let text = format!("[data]\ndocuments = {text:?}");
        load(&text).map(|config| config.data.documents)
    };
    assert_eq!(documents("files").unwrap(), Some(Documents::Files));
    let separator = documents("separator:a:b").unwrap();
    assert_eq!(separator, Some(Documents::Separator("a:b".to_owned())));
    for wrong in ["", "file", "separator:", "separator"] {
        let message = documents(wrong).unwrap_err().to_string();
        assert!(
            message.contains("data.documents") && message.contains("separator:TEXT"),
            "{message}"
        );
    }
}
