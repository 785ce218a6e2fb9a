//! `gateloop import` and `gateloop export`

use super::args::{ExportArgs, ImportArgs, LayoutName};
use super::{CliError, open_checkpoint, print_line};
use crate::checkpoint::{self, RunProgress, TrainingState};
use crate::data::SamplerState;
use crate::exchange::{self, Layout};
use crate::metrics::MetricsWriter;
use crate::model::{Model, ModelError};
use crate::train::{ExistingFolder, Optimizer, RunFolder};
use crate::vocabulary::Vocabulary;
use crate::weights;
use tch::{Device, Kind};

pub(super) fn import(args: &ImportArgs) -> Result<(), CliError> {
    let (tensors, layout) = exchange::read(&args.weights)?;
    let inferred = exchange::infer(&tensors, layout, &args.overrides)?;
    let config = &inferred.config;
    let model = Model::new(&config.model, Device::Cpu)?;
    weights::load_strict(&model.parameters(), &tensors)?;
    let vocabulary = Vocabulary::of(&config.data)?;
    vocabulary.check(config.model.num_tokens)?;

    // Everything that can be refused has been; only now is there a folder.
    let existing = if args.overwrite { ExistingFolder::Replace } else { ExistingFolder::Keep };
    let folder = RunFolder::create(&args.out, config, existing)?;
    MetricsWriter::create(folder.metrics()).map_err(crate::train::TrainError::from)?;
    let optimizer = Optimizer::new(&model.parameters(), &config.train).map_err(ModelError::from)?;
    let sampler = SamplerState { seed: config.train.seed, drawn: 0 };
    let progress = RunProgress::new(0, 0.0, sampler);
    let path = folder.checkpoints().file(0);
    let state =
        TrainingState { optimizer: optimizer.state()?, vocabulary, ..TrainingState::default() };
    checkpoint::save(&path, config, &progress, &model, &state)?;

    let parameters: usize = model.parameters().values().map(tch::Tensor::numel).sum();
    let layout = match layout {
        Layout::PyTorch => "PyTorch",
        Layout::Jax => "JAX",
    };
    print_line(&format!(
        "{layout} weights of {:.2}M parameters are now the run {} at step 0",
        parameters as f64 / 1e6,
        args.out.display()
    ))?;
    for (key, value) in &inferred.assumed {
        print_line(&format!(
            "assumed, as no shape shows it: model.{key} = {value} (another: --set model.{key}=..)"
        ))?;
    }
    Ok(())
}

pub(super) fn export(args: &ExportArgs) -> Result<(), CliError> {
    let checkpoint = open_checkpoint(&args.checkpoint)?;
    let mut model = checkpoint.model(Device::Cpu)?;
    model.set_kind(Kind::Float);
    let is_numpy = args.out.extension().is_some_and(|ext| ext == "npz" || ext == "eqx");
    let layout = match args.layout {
        Some(LayoutName::Jax) => Layout::Jax,
        None if is_numpy => Layout::Jax,
        Some(LayoutName::Pytorch) | None => Layout::PyTorch,
    };
    let tensors = model.parameters();
    exchange::write(&args.out, &tensors, layout)?;
    print_line(&format!("{} tensors written to {}", tensors.len(), args.out.display()))
}
