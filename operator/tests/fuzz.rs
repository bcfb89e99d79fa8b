//! Any text where Kubernetes lets people write a size or a length of time: it is read, or refused with an error.

use annulus_fuzz::{damaged_text, fuzz, within};
use annulus_operator::{duration, quantity};

#[test]
fn sizes_and_lengths_of_time_survive_anything() {
    let good = ["10Gi", "1.5G", "1e9", "500m", "+5Mi", "340282366920938463463374607431768211455", "90s", "1h30m"];
    fuzz("sizes and lengths of time", |noise| {
        let text = noise.pick(&good).to_string();
        let text = damaged_text(noise, &text, "9999999999999999Eie-30s");
        let room = 4 * text.len() + 256;
        match within(room, || quantity::bytes(&text)) {
            // As many bytes are a size too, unless they have more digits than any disk.
            Ok(bytes) if bytes < 1 << 70 => assert_eq!(quantity::bytes(&bytes.to_string()), Ok(bytes), "{text}"),
            Ok(_) => {}
            Err(error) => assert_eq!(error.0, text),
        }
        match within(room, || duration::parse(&text)) {
            Ok(length) => assert_eq!(duration::parse(&format!("{}s", length.as_secs())), Ok(length), "{text}"),
            Err(error) => assert_eq!(error.0, text),
        }
    });
}
