//! From SVG to PNG, with a font of our own: the pixels do not depend on what is installed.

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};
use std::sync::{Arc, OnceLock};

/// Pixels to a unit of the SVG: sharp on a screen of high density, still small as a file.
const SCALE: f32 = 2.0;

/// The bytes of a PNG.
pub(super) fn png(svg: &str) -> Result<Vec<u8>, String> {
    let options = Options { fontdb: fonts(), ..Options::default() };
    let tree = Tree::from_str(svg, &options).map_err(|error| error.to_string())?;
    let size = tree.size().to_int_size().scale_by(SCALE).ok_or("the picture has no pixels")?;
    let mut pixels = Pixmap::new(size.width(), size.height()).ok_or("too many pixels")?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().map_err(|error| error.to_string())
}

/// The one font, read once.
fn fonts() -> Arc<fontdb::Database> {
    static FONTS: OnceLock<Arc<fontdb::Database>> = OnceLock::new();
    let read = || {
        let mut fonts = fontdb::Database::new();
        let bytes = fontdb::Source::Binary(Arc::new(epaint_default_fonts::UBUNTU_LIGHT));
        fonts.load_font_source(bytes);
        let family = fonts.faces().next().and_then(|face| Some(face.families.first()?.0.clone()));
        if let Some(family) = family {
            fonts.set_sans_serif_family(family);
        }
        Arc::new(fonts)
    };
    Arc::clone(FONTS.get_or_init(read))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixels(body: &str) -> Pixmap {
        let svg = format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="120" height="40">{body}</svg>"#
        );
        Pixmap::decode_png(&png(&svg).unwrap()).unwrap()
    }

    fn inked(pixels: &Pixmap) -> usize {
        pixels.pixels().iter().filter(|pixel| pixel.alpha() > 128).count()
    }

    #[test]
    fn text_is_drawn_with_the_font_of_our_own() {
        let text = |letters: &str| {
            let font = r#"font-family="sans-serif" font-size="20""#;
            pixels(&format!(r#"<text x="5" y="30" {font}>{letters}</text>"#))
        };
        let (word, longer) = (text("bpc"), text("bpc bpc"));
        assert_eq!((word.width(), word.height()), (240, 80));
        assert!(inked(&word) > 100, "{}", inked(&word));
        assert!(inked(&longer) > inked(&word) * 3 / 2);
    }

    #[test]
    fn what_is_no_picture_is_an_error() {
        assert!(png("no svg").is_err());
    }
}
