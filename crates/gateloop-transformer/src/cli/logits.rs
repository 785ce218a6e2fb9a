//! `gateloop logits`

use super::args::LogitsArgs;
use super::{CliError, print_line};
use crate::config::Config;
use crate::exchange;
use crate::model::{Model, ModelError};
use crate::weights::{self, Metadata, Tensors, WeightFile};
use tch::{Device, Kind};

pub(super) fn run(args: &LogitsArgs) -> Result<(), CliError> {
    let config = Config::load(&args.config, &args.overrides)?;
    let model = Model::new(&config.model, Device::Cpu)?;
    let (tensors, _) = exchange::read(&args.weights)?;
    weights::load_strict(&model.parameters(), &tensors)?;

    let ids = WeightFile::open(&args.ids)?.tensors(|name| (name == "ids").then(|| name.into()))?;
    let ids = ids.get("ids").ok_or_else(|| CliError::NoIds { path: args.ids.clone() })?;
    let logits = tch::no_grad(|| model.forward(ids))?;
    let logits = logits.f_to_kind(Kind::Float).map_err(ModelError::from)?;
    let shape = logits.size();
    let tensors = Tensors::from([("logits".to_owned(), logits)]);
    weights::write(&args.out, &tensors, Metadata::new())?;
    print_line(&format!("logits {shape:?} written to {}", args.out.display()))
}
