//! What kind of file a picture becomes.

use crate::metrics::MetricsError;
use std::path::Path;

/// The kinds of pictures that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Scalable vector graphics: sharp at any size, its text is text.
    Svg,
    /// A grid of pixels, for places that show no SVG.
    Png,
}

impl Format {
    /// The kind that the extension of a path names, in upper or lower case.
    ///
    /// Any extension but `svg` and `png` is an error that names the two.
    pub fn of(path: &Path) -> Result<Self, MetricsError> {
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        match extension.as_deref() {
            Some("svg") => Ok(Self::Svg),
            Some("png") => Ok(Self::Png),
            _ => Err(MetricsError::PictureFormat { path: path.to_owned() }),
        }
    }
}
