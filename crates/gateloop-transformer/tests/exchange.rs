//! Weights for PyTorch and JAX and back: names, shapes, every bit; configurations told from shapes;
//! what does not fit is named in full.

// A test ends by panicking.
#![allow(clippy::unwrap_used)]

#[path = "common/mod.rs"]
mod common;
#[path = "model/models.rs"]
mod models;

use common::{TestResult, values};
use gateloop_transformer::config::{LayerKind, ModelConfig, RelPosVariant};
use gateloop_transformer::exchange::{self, ExchangeError, Layout, infer, jax};
use gateloop_transformer::model::Model;
use gateloop_transformer::weights::{self, Metadata, Tensors};
use models::{ids, model_f64, small_models};
use std::fs;
use std::path::Path;
use tch::{Device, Kind, Tensor};

fn jax_config() -> ModelConfig {
    ModelConfig { num_tokens: 11, dim: 4, depth: 2, ff_mult: 3, ..ModelConfig::jax_reference() }
}

fn model_f32(config: &ModelConfig) -> Model {
    let mut model = model_f64(config);
    model.set_kind(Kind::Float);
    model
}

fn assert_same(actual: &Tensors, expected: &Tensors) {
    let names = |tensors: &Tensors| tensors.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(actual), names(expected));
    for (name, tensor) in actual {
        assert_eq!(tensor.size(), expected[name].size(), "{name}");
        assert_eq!(values(tensor), values(&expected[name]), "{name}");
    }
}

#[test]
fn jax_files_of_every_format_come_back_bit_for_bit() -> TestResult {
    let folder = tempfile::tempdir()?;
    let parameters = model_f32(&jax_config()).parameters();
    for name in ["weights.npz", "weights.eqx", "weights.safetensors"] {
        let path = folder.path().join(name);
        exchange::write(&path, &parameters, Layout::Jax)?;
        let (tensors, layout) = exchange::read(&path)?;
        assert_eq!(layout, Layout::Jax, "{name}");
        assert_same(&tensors, &parameters);
        assert_eq!(infer(&tensors, layout, &[])?.config.model, jax_config(), "{name}");
    }
    Ok(())
}

#[test]
fn a_state_dict_is_read_as_it_is_and_without_the_prefixes_of_wrappers() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("weights.safetensors");
    let parameters = model_f32(&small_models()[0]).parameters();
    exchange::write(&path, &parameters, Layout::PyTorch)?;
    assert_same(&exchange::read(&path)?.0, &parameters);
    let wrapped = |(name, tensor): (&String, &Tensor)| {
        (format!("_orig_mod.module.{name}"), tensor.shallow_clone())
    };
    weights::write(&path, &parameters.iter().map(wrapped).collect(), Metadata::new())?;
    assert_same(&exchange::read(&path)?.0, &parameters);
    Ok(())
}

#[test]
fn the_jax_layout_is_transposed_with_real_parts_first() -> TestResult {
    let parameters = model_f32(&jax_config()).parameters();
    let arrays = jax::from_pytorch(&parameters)?;
    let element = |tensor: &Tensor, at: &[i64]| tensor.double_value(at);
    let (qkv, wk) = (&parameters["layers.1.0.fn.to_qkv.weight"], &arrays["layers.1.0.wk"]);
    assert_eq!(element(wk, &[3, 1]), element(qkv, &[4 + 1, 3]), "k comes second, [in, out]");
    let (to_a, wa) = (&parameters["layers.1.0.fn.to_a.0.weight"], &arrays["layers.1.0.wa"]);
    for head in 0..4 {
        assert_eq!(element(wa, &[2, head]), element(to_a, &[2 * head, 2]), "real part");
        assert_eq!(element(wa, &[2, 4 + head]), element(to_a, &[2 * head + 1, 2]), "imaginary");
    }
    assert_eq!(arrays["layers.0.1.proj_in.weight"].size(), [4, 12]);
    assert_eq!(values(&arrays["embedding"]), values(&parameters["token_emb.weight"]));
    Ok(())
}

#[test]
fn names_of_jax_come_in_several_spellings() {
    for name in [".layers[0][1].proj_in.weight", "layers/0/1/proj_in/weight"] {
        assert_eq!(jax::plain_name(name), "layers.0.1.proj_in.weight");
    }
    assert_eq!(jax::plain_name("['embedding']"), "embedding");
}

#[test]
fn every_configuration_is_told_from_its_weights() -> TestResult {
    for config in small_models() {
        let layout = if config.tie_embedding { Layout::Jax } else { Layout::PyTorch };
        let model = model_f64(&config);
        // What no shape shows.
        let mut given = vec![
            format!("model.heads={}", config.heads),
            format!("model.ablate_complex={}", config.ablate_complex),
            format!("model.ablate_state_transition={}", config.ablate_state_transition),
            "model.rel_pos=corrected".to_owned(),
        ];
        if config.has(LayerKind::SlidingWindowAttention) {
            given.push(format!("model.layers={}", serde_json::to_string(&config.layers)?));
            given.push(format!("model.attention_window={}", config.attention_window));
        }
        let inferred = infer(&model.parameters(), layout, &given)?;
        let found = Model::new(&inferred.config.model, Device::Cpu)?;
        weights::load_strict(&found.parameters(), &model.parameters())?;
        let mut found = found;
        found.set_kind(Kind::Double);
        weights::load_strict(&found.parameters(), &model.parameters())?;
        let logits = |model: &Model| model.forward(&ids(1, 20)).map(|logits| values(&logits));
        assert_eq!(logits(&found)?, logits(&model)?, "{config:?}\n{inferred:?}");
    }
    Ok(())
}

#[test]
fn what_no_shape_shows_is_told_or_asked_for() -> TestResult {
    let attention = ModelConfig {
        use_gate_looped_attn: false,
        dim_head: 4,
        heads: 2,
        data_dependent_rel_pos: true,
        dim: 8,
        depth: 1,
        ..ModelConfig::default()
    };
    let parameters = |config: &ModelConfig| Model::new(config, Device::Cpu).unwrap().parameters();
    let error = infer(&parameters(&attention), Layout::PyTorch, &[]).unwrap_err();
    assert!(matches!(error, ExchangeError::Ask { .. }));
    assert!(error.to_string().contains("--set model.heads=N"), "{error}");
    for given in ["model.heads=2", "model.dim_head=4"] {
        let told = infer(&parameters(&attention), Layout::PyTorch, &[given.to_owned()])?;
        let model = told.config.model;
        assert_eq!(
            (model.heads, model.dim_head, model.rel_pos),
            (2, 4, RelPosVariant::AsReference)
        );
        assert!(
            told.assumed.contains(&("rel_pos", "as_reference".to_owned())),
            "{:?}",
            told.assumed
        );
    }
    let rotary = ModelConfig { rotary_emb: true, data_dependent_rel_pos: false, ..attention };
    let told = infer(&parameters(&rotary), Layout::PyTorch, &[])?;
    assert_eq!((told.config.model.heads, told.config.model.dim_head), (2, 4));
    let keys: Vec<&str> = told.assumed.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, ["attn_softmax_normalize"]);
    let hybrid = ModelConfig {
        layers: vec![LayerKind::SimpleGateLoop, LayerKind::GateLoop],
        dim: 8,
        depth: 4,
        ..ModelConfig::default()
    };
    let told = infer(&parameters(&hybrid), Layout::PyTorch, &[])?;
    assert_eq!(told.config.model.diff(&hybrid).len(), 1, "the pattern is spelled out");
    assert_eq!(told.config.model.layers.len(), 4);
    Ok(())
}

#[test]
fn arrays_that_do_not_fit_are_all_named() {
    let mut arrays = jax::from_pytorch(&model_f32(&jax_config()).parameters()).unwrap();
    for name in ["layers.0.0.wq", "layers.1.1.proj_in.bias", "norm.gamma"] {
        drop(arrays.remove(name).unwrap());
    }
    let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
    arrays.insert("layers.1.0.wz".into(), ones(&[2, 2]));
    arrays.insert("layers.0.0.wa".into(), ones(&[4, 7]));
    let message = jax::to_pytorch(&arrays).unwrap_err().to_string();
    for part in [
        "missing: `layers.0.0.wq`, `layers.1.1.proj_in.bias`, `norm.gamma`",
        "unexpected: `layers.1.0.wz`",
        "`layers.0.0.wa` is [4, 7] in the file and [4, 8] in the model",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_model_that_jax_does_not_have_is_not_exported() {
    for config in [
        ModelConfig { post_ln_norm: true, ..jax_config() },
        ModelConfig { tie_embedding: false, ..jax_config() },
        ModelConfig { state_transition_bias: true, ..jax_config() },
        ModelConfig { attn_add_swish_gating: false, ..jax_config() },
        ModelConfig { gate_loop_heads: Some(2), ..jax_config() },
        ModelConfig { layers: vec![LayerKind::SimpleGateLoop], ..jax_config() },
    ] {
        let parameters = Model::new(&config, Device::Cpu).unwrap().parameters();
        let refused = jax::from_pytorch(&parameters).unwrap_err();
        assert!(matches!(refused, ExchangeError::NotForJax(_)), "{config:?}: {refused}");
    }
}

fn message_of(path: &Path) -> String {
    exchange::read(path).unwrap_err().to_string()
}

#[test]
fn files_that_are_no_weights_say_what_they_should_be() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("file");
    let parameters = model_f32(&jax_config()).parameters();

    assert!(message_of(&path).contains("cannot read"), "absent");
    for bytes in [&b""[..], b"hello, world"] {
        fs::write(&path, bytes)?;
        assert!(message_of(&path).contains("is no safetensors, .npz or .eqx file"));
    }
    for name in ["file.npz", "file.eqx", "file.safetensors"] {
        let whole = folder.path().join(name);
        exchange::write(&whole, &parameters, Layout::Jax)?;
        let bytes = fs::read(&whole)?;
        // Cut anywhere, it is an error, never a panic; between two arrays of a sequence as well.
        for cut in (1..20).map(|part| bytes.len() * part / 20) {
            fs::write(&path, &bytes[..cut])?;
            assert!(exchange::read(&path).is_err(), "{name} cut at {cut}");
        }
    }
    fs::write(&path, npz_with("archive/data.pkl", b"pickled")?)?;
    assert!(message_of(&path).contains("is a pickle of PyTorch"));
    weights::write(&path, &Tensors::from([("x.y".into(), Tensor::from(1.0))]), Metadata::new())?;
    assert!(message_of(&path).contains("it has: x.y"));

    for name in ["weights.pt", "weights"] {
        let error = exchange::write(&folder.path().join(name), &parameters, Layout::PyTorch);
        assert!(error.unwrap_err().to_string().contains("does not say how to write"));
    }
    let npz = folder.path().join("weights.npz");
    assert!(exchange::write(&npz, &parameters, Layout::PyTorch).is_err());
    assert!(!npz.exists());
    Ok(())
}

fn npz_with(name: &str, bytes: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    use std::io::Write;
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    archive.start_file(name, zip::write::SimpleFileOptions::default())?;
    archive.write_all(bytes)?;
    Ok(archive.finish()?.into_inner())
}
