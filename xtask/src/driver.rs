//! What the CUDA driver says of itself and its devices.

use cudarc::driver::{result, sys};

/// The driver and the names of its devices.
#[derive(Debug)]
pub(crate) struct Gpus {
    /// The newest CUDA the driver can run, as (major, minor).
    pub(crate) cuda: (i32, i32),
    pub(crate) names: Vec<String>,
}

/// `Ok(None)` on a machine without the driver, which is a good machine too.
pub(crate) fn find() -> Result<Option<Gpus>, String> {
    // SAFETY: opens libcuda and closes it again; its initialisers have no precondition.
    // Asked first because every other call of cudarc panics when the library is absent.
    if !unsafe { sys::is_culib_present() } {
        return Ok(None);
    }
    result::init().map_err(explain)?;
    let mut version = 0;
    // SAFETY: the driver writes one integer through a pointer to one.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().map_err(explain)?;
    let count = result::device::get_count().map_err(explain)?;
    let names = (0..count)
        .map(|ordinal| result::device::get_name(result::device::get(ordinal)?))
        .collect::<Result<_, _>>()
        .map_err(explain)?;
    Ok(Some(Gpus { cuda: (version / 1000, version % 1000 / 10), names }))
}

fn explain(error: result::DriverError) -> String {
    let name = error.error_name().map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|_| format!("{error:?}"))
}
