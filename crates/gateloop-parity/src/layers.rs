//! Building and running one layer of a case.

use crate::case_file::{Call, CaseFile};
use crate::error::ParityError;
use gateloop_nn::gate_loop::{Form, TransitionMode};
use gateloop_nn::{
    AttentionConfig, Engine, FeedForwardConfig, GateLoopConfig, NnError, RelPos, SequenceLayer,
    SimpleGateLoopConfig, SimpleGateLoopState,
};
use gateloop_scan::Algorithm;
use gateloop_transformer::weights::{self, Tensors};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// What a layer makes of its input: the output and, of some, the last state.
type Output = (Tensor, Option<Tensor>);

/// Runs the layer of a case in `kind`; `form` is how a gate loop is computed.
///
/// Returns the quantities by name, and the weights as the layer holds them in single precision.
pub(crate) fn run(
    file: &CaseFile,
    kind: Kind,
    form: Form,
) -> Result<(Tensors, Tensors), ParityError> {
    let mut vs = VarStore::new(Device::Cpu);
    let layer = build(file, &vs, form)?;
    let parameters: Tensors = vs.variables().into_iter().collect();
    weights::load_strict(&parameters, &file.group("param"))?;
    let held = parameters.iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
    vs.set_kind(kind);

    let input = |name: &str| Ok::<_, ParityError>(file.need(name)?.f_to_kind(kind)?);
    let x = input("input.x")?.f_detach()?.f_set_requires_grad(true)?;
    let cache = file.get("input.cache").map(|cache| cache.f_to_kind(kind)).transpose()?;
    let (y, last) = layer(&x, cache)?;
    y.f_mul(&input("input.dy")?)?.f_sum(kind)?.f_backward()?;

    let mut quantities = Tensors::from([("y".to_owned(), y), ("dx".to_owned(), x.grad())]);
    quantities.extend(last.map(|last| ("cache".to_owned(), last)));
    let variables: Tensors = vs.variables().into_iter().collect();
    quantities.extend(gradients(&variables));
    Ok((quantities, held))
}

/// The gradients that there are.
pub(crate) fn gradients(parameters: &Tensors) -> Tensors {
    parameters
        .iter()
        .map(|(name, parameter)| (format!("grad.{name}"), parameter.grad()))
        .filter(|(_, grad)| grad.defined())
        .collect()
}

type Layer = Box<dyn Fn(&Tensor, Option<Tensor>) -> Result<Output, NnError>>;

fn build(file: &CaseFile, vs: &VarStore, form: Form) -> Result<Layer, ParityError> {
    let root = vs.root();
    Ok(match file.case.module.as_deref() {
        Some("gate_loop") => {
            let (config, mode) = (gate_loop(file, form)?, transition(file.case.call));
            let layer = config.init(&root)?;
            Box::new(move |x, _| Ok((layer.forward_with(x, mode)?, None)))
        }
        Some("attention") => {
            let mode = transition(file.case.call);
            let layer = attention(file)?.init(&root)?;
            Box::new(move |x, _| Ok((layer.forward_with(x, mode)?, None)))
        }
        Some("feed_forward") => {
            let (dim, mult) = (file.option("dim")?, file.option("mult")?);
            let config = FeedForwardConfig { mult, ..FeedForwardConfig::new(dim) };
            let layer = config.init(&root)?;
            Box::new(move |x, _| Ok((layer.forward(x)?, None)))
        }
        Some("simple_gate_loop") => {
            let config = simple_gate_loop(file)?;
            let layer = config.init(&root)?;
            Box::new(move |x, cache| {
                if config.reverse {
                    return Ok((layer.forward(x)?, None));
                }
                let mut state = match cache {
                    Some(cache) => SimpleGateLoopState::from_tensor(cache),
                    None => layer.initial_state(x.size()[0]),
                };
                let y = layer.prefill(x, &mut state)?;
                Ok((y, state.tensor().map(Tensor::shallow_clone)))
            })
        }
        other => return Err(file.no_case(format!("no layer is called {other:?}"))),
    })
}

fn transition(call: Call) -> TransitionMode {
    match (call.ablate_state_transition, call.ablate_complex) {
        (Some(true), _) => TransitionMode::Identity,
        (_, Some(true)) => TransitionMode::Real,
        _ => TransitionMode::Complex,
    }
}

fn gate_loop(file: &CaseFile, form: Form) -> Result<GateLoopConfig, ParityError> {
    Ok(GateLoopConfig {
        dim_inner: file.option("dim_inner")?,
        heads: file.option("heads")?,
        swish_gating: file.option("swish_gating")?,
        sub_ln: file.option("sub_ln")?,
        frac_gradient_state_transition: file.option("frac_gradient_state_transition")?,
        recompute: file.option("checkpoint")?,
        form,
        ..GateLoopConfig::new(file.option("dim")?)
    })
}

fn attention(file: &CaseFile) -> Result<AttentionConfig, ParityError> {
    let fades: bool = file.option("data_dependent_rel_pos")?;
    let rel_pos: Option<String> = file.option("rel_pos")?;
    let rel_pos = match (fades, rel_pos.as_deref()) {
        (false, _) => None,
        (true, Some("as_reference")) => Some(RelPos::AsReference),
        (true, other) => return Err(file.no_case(format!("no rel_pos is called {other:?}"))),
    };
    Ok(AttentionConfig {
        dim_head: file.option("dim_head")?,
        heads: file.option("heads")?,
        rotary_emb: file.option("rotary_emb")?,
        swish_gating: file.option("swish_gating")?,
        rel_pos,
        frac_gradient_rel_pos: file.option("frac_gradient_data_dependent_rel_pos")?,
        softmax_normalize: file.option("softmax_normalize")?,
        ..AttentionConfig::new(file.option("dim")?)
    })
}

fn simple_gate_loop(file: &CaseFile) -> Result<SimpleGateLoopConfig, ParityError> {
    let engine: String = file.option("engine")?;
    let engine = match engine.as_str() {
        "heinsen_as_reference" => Engine::HeinsenAsReference,
        name => {
            let algorithm = name.parse::<Algorithm>();
            Engine::Scan(algorithm.map_err(|error| file.no_case(error.to_string()))?)
        }
    };
    Ok(SimpleGateLoopConfig {
        prenorm: file.option("prenorm")?,
        post_ln: file.option("post_ln")?,
        reverse: file.option("reverse")?,
        engine,
        ..SimpleGateLoopConfig::new(file.option("dim")?)
    })
}
