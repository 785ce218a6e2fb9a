//! Building and running the model of a case.

use crate::case_file::CaseFile;
use crate::error::ParityError;
use crate::layers::gradients;
use gateloop_transformer::config::ModelConfig;
use gateloop_transformer::exchange::jax;
use gateloop_transformer::generate::{Generator, Sampler};
use gateloop_transformer::model::{Ablation, Model};
use gateloop_transformer::weights::{self, Tensors};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// Runs the model of a case in `kind`.
///
/// Returns the quantities by name, and the weights as the model holds them in single precision, under
/// the framework's names.
pub(crate) fn run(file: &CaseFile, kind: Kind) -> Result<(Tensors, Tensors), ParityError> {
    let mut model = build(file)?;
    let held = in_layout(file, &model.parameters())?;
    model.set_kind(kind);
    let windows = file.need("input.windows")?;
    let call = file.case.call;
    let ablation =
        Ablation { complex: call.ablate_complex, state_transition: call.ablate_state_transition };
    let ids = windows.f_narrow(1, 0, windows.size()[1] - 1)?;
    let logits = tch::no_grad(|| model.forward_with(&ids, ablation))?;
    let loss = model.loss_with(windows, ablation)?;
    loss.f_backward()?;
    let mut quantities = Tensors::from([("logits".to_owned(), logits), ("loss".to_owned(), loss)]);
    quantities.extend(gradients_in_layout(file, &model)?);
    Ok((quantities, held))
}

/// Tokens of the reference's greedy continuation that ours begins with, and all of them.
pub(crate) fn greedy(file: &CaseFile) -> Result<Option<(usize, usize)>, ParityError> {
    let (Some(prompt), Some(expected)) = (file.get("greedy.prompt"), file.get("greedy.ids")) else {
        return Ok(None);
    };
    let ids = |tensor: &Tensor| Vec::<i64>::try_from(tensor.f_flatten(0, -1)?);
    let (prompt, expected) = (ids(prompt)?, ids(expected)?);
    let model = build(file)?;
    let mut generator = Generator::new(&model, &prompt, Sampler::greedy())?;
    let mut equal = 0;
    for token in &expected {
        if generator.next_token()? != *token {
            break;
        }
        equal += 1;
    }
    Ok(Some((equal, expected.len())))
}

/// The model in single precision with the case's weights.
pub(crate) fn build(file: &CaseFile) -> Result<Model, ParityError> {
    let config = config(file)?;
    let model = Model::new(&config, Device::Cpu)?;
    let arrays = file.group("param");
    let tensors = if is_jax(file) { jax::to_pytorch(&arrays)? } else { arrays };
    weights::load_strict(&model.parameters(), &tensors)?;
    Ok(model)
}

fn is_jax(file: &CaseFile) -> bool {
    file.case.framework == "jax"
}

fn config(file: &CaseFile) -> Result<ModelConfig, ParityError> {
    let mut options = file.case.options.clone();
    if let (true, Value::Object(options)) = (is_jax(file), &mut options) {
        // The JAX model passes the whole gradient on, and has no option for it.
        let whole = Value::from(ModelConfig::jax_reference().frac_gradient_state_transition);
        options.entry("frac_gradient_state_transition").or_insert(whole);
    }
    let config: ModelConfig =
        serde_json::from_value(options).map_err(|error| file.no_case(error.to_string()))?;
    config.validate().map_err(|error| file.no_case(error.to_string()))?;
    Ok(config)
}

fn in_layout(file: &CaseFile, tensors: &Tensors) -> Result<Tensors, ParityError> {
    Ok(if is_jax(file) {
        jax::from_pytorch(tensors)?
    } else {
        tensors.iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect()
    })
}

/// A conversion moves elements about, so a gradient goes the way of its parameter.
fn gradients_in_layout(file: &CaseFile, model: &Model) -> Result<Tensors, ParityError> {
    if !is_jax(file) {
        return Ok(gradients(&model.parameters()));
    }
    let mut grads = Tensors::new();
    for (name, parameter) in model.parameters() {
        let grad = parameter.grad();
        // JAX has a gradient of zero where nothing depends on a parameter.
        let grad = if grad.defined() { grad } else { parameter.f_zeros_like()? };
        grads.insert(name, grad);
    }
    let arrays = jax::from_pytorch(&grads)?;
    Ok(arrays.into_iter().map(|(name, grad)| (format!("grad.{name}"), grad)).collect())
}
