//! `gateloop data`

use super::args::DataCommand;
use super::{CliError, print_line};
use crate::data::{Progress, enwik8};

pub(super) fn run(command: &DataCommand) -> Result<(), CliError> {
    // enwik8 is the only data set there is; the parser lets no other name through.
    let DataCommand::Fetch { name: _ } = command;
    let path = enwik8::fetch(&enwik8::Places::from_env(), Progress::Auto)?;
    print_line(&path.display().to_string())
}
