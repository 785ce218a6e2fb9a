//! The same training run as the reference: same weights, same batches, same settings.

use crate::case_file::CaseFile;
use crate::compare::relative_rms;
use crate::error::ParityError;
use crate::models;
use gateloop_transformer::config::TrainConfig;
use gateloop_transformer::train::Optimizer;
use gateloop_transformer::weights::Tensors;
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::{Kind, Tensor};

/// In single precision a loss may differ by this much, or by twice what the reference differs from
/// itself in double precision up to that step, whichever is more.
const SINGLE: f64 = 1e-3;
/// In double precision.
const DOUBLE: f64 = 1e-6;
/// Final parameters in double precision, relative RMS over all.
const FINAL_DOUBLE: f64 = 1e-6;

/// A compared run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trajectory {
    /// Its name.
    pub case: String,
    /// Losses: ours and the reference's, in f32 and in f64.
    pub losses: Losses,
    /// Largest relative difference of a loss, ours to the reference's, f32.
    pub loss_f32: f64,
    /// The same in f64.
    pub loss_f64: f64,
    /// The reference's f32 to its own f64.
    pub drift: f64,
    /// Relative RMS difference of the final parameters, ours to the reference's, f32.
    pub final_f32: f64,
    /// The same in f64.
    pub final_f64: f64,
    /// The reference's f32 to its own f64.
    pub final_drift: f64,
    /// Whether everything is within what is allowed.
    pub ok: bool,
}

/// Four learning curves.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Losses {
    /// Ours in f32.
    pub ours: Vec<f64>,
    /// Ours in f64.
    pub ours_f64: Vec<f64>,
    /// The reference's in f32.
    pub reference: Vec<f64>,
    /// The reference's in f64.
    pub reference_f64: Vec<f64>,
}

/// The optimiser's settings under the reference's names.
#[derive(Debug, Deserialize)]
struct Settings {
    lr: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    clip_norm: f64,
}

/// Trains as the case says, in single and in double precision, and compares step by step.
pub fn check(path: &Path) -> Result<Trajectory, ParityError> {
    let file = CaseFile::open(path)?;
    let (ours, final_single) = train(&file, Kind::Float)?;
    let (ours_f64, final_double) = train(&file, Kind::Double)?;
    let losses = Losses {
        ours,
        ours_f64,
        reference: Vec::try_from(file.need("expect.losses")?)?,
        reference_f64: Vec::try_from(file.need("expect.losses64")?)?,
    };
    let (end, end_f64) = (file.group("expect.final"), file.group("expect.final64"));
    let loss_f32 = largest(&losses.ours, &losses.reference);
    let loss_f64 = largest(&losses.ours_f64, &losses.reference_f64);
    let drift = largest(&losses.reference, &losses.reference_f64);
    let final_f64 = difference(&final_double, &end_f64)?;
    let within = |step: usize| {
        let drift = largest(&losses.reference[..=step], &losses.reference_f64[..=step]);
        let found = largest(&losses.ours[step..=step], &losses.reference[step..=step]);
        found <= SINGLE.max(2.0 * drift)
    };
    let ok = (0..losses.ours.len()).all(within) && loss_f64 <= DOUBLE && final_f64 <= FINAL_DOUBLE;
    Ok(Trajectory {
        case: file.case.name.clone(),
        loss_f32,
        loss_f64,
        drift,
        final_f32: difference(&final_single, &end)?,
        final_f64,
        final_drift: difference(&end, &end_f64)?,
        ok,
        losses,
    })
}

/// The losses before each update, and the parameters after the last.
fn train(file: &CaseFile, kind: Kind) -> Result<(Vec<f64>, Tensors), ParityError> {
    let settings: Settings = serde_json::from_value(file.case.optimizer.clone())
        .map_err(|error| file.no_case(format!("optimizer: {error}")))?;
    let config = TrainConfig {
        lr: settings.lr,
        beta1: settings.beta1,
        beta2: settings.beta2,
        eps: settings.eps,
        clip_norm: settings.clip_norm,
        weight_decay: 0.0,
        ..TrainConfig::default()
    };
    let mut model = models::build(file)?;
    model.set_kind(kind);
    let mut optimizer = Optimizer::new(&model.parameters(), &config)?;
    let windows = file.need("input.windows")?;
    let mut losses = Vec::new();
    for step in 0..windows.size()[0] {
        optimizer.clear_gradients()?;
        let loss = model.loss(&windows.f_get(step)?)?;
        loss.f_backward()?;
        let _norm = optimizer.clip_gradients()?;
        optimizer.step(config.lr)?;
        losses.push(loss.f_double_value(&[])?);
    }
    Ok((losses, model.parameters()))
}

/// The largest relative difference of two runs' losses; infinite where one is not a number.
fn largest(ours: &[f64], theirs: &[f64]) -> f64 {
    let differences = ours.iter().zip(theirs).map(|(a, b)| ((a - b) / b).abs());
    differences.fold(0.0, |largest, x| if x.is_nan() { f64::INFINITY } else { x.max(largest) })
}

/// Relative RMS difference over all parameters together.
fn difference(ours: &Tensors, theirs: &Tensors) -> Result<f64, ParityError> {
    let flat = |tensors: &Tensors| -> Result<Tensor, ParityError> {
        let parts = theirs.keys().filter_map(|name| tensors.get(name));
        let parts: Vec<Tensor> = parts
            .map(|part| part.f_detach()?.f_to_kind(Kind::Double)?.f_flatten(0, -1))
            .collect::<Result<_, _>>()?;
        Ok(Tensor::f_cat(&parts, 0)?)
    };
    relative_rms(&flat(ours)?, &flat(theirs)?)
}
