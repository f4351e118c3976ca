//! Estimated mean opinion score: the E-model of ITU-T G.107 reduced to what a gateway can see.
//!
//! `R = R0 − Id − Ie,eff` with every input that is not measured at its default, then R to MOS by
//! G.107 Annex B. Codec figures are those of G.711 with concealment (G.113 Appendix I).

/// R of a perfect narrow-band connection at the default values of G.107.
const R_DEFAULT: f32 = 93.2;
/// Equipment impairment of G.711 (G.113 Appendix I).
const IE_G711: f32 = 0.0;
/// Packet-loss robustness of G.711 with concealment, random loss (G.113 Appendix I).
const BPL_G711: f32 = 25.1;
/// Delay of one frame, look-ahead none: what sampling and packing add, in milliseconds.
const PACKING_MS: f32 = 20.0;

/// MOS for a loss in percent and a one-way delay in milliseconds (network and buffers; packing is
/// added here). Between 1.0 and 4.5.
#[must_use]
pub fn estimate(loss_percent: f32, delay_ms: f32) -> f32 {
    from_r(rating(loss_percent, delay_ms))
}

/// The rating R.
#[must_use]
pub fn rating(loss_percent: f32, delay_ms: f32) -> f32 {
    R_DEFAULT - delay_impairment(delay_ms + PACKING_MS) - loss_impairment(loss_percent)
}

/// Id: the piecewise-linear fit of Cole and Rosenbluth (2001) to the delay terms of G.107, good
/// to 400 ms one way; the knee is the 177.3 ms where talkers begin to notice.
fn delay_impairment(delay_ms: f32) -> f32 {
    let delay_ms = delay_ms.clamp(0.0, 1_000.0);
    0.024 * delay_ms + 0.11 * (delay_ms - 177.3).max(0.0)
}

/// Ie,eff for random loss (G.107 equation 7-29 with BurstR = 1).
fn loss_impairment(loss_percent: f32) -> f32 {
    let loss = loss_percent.clamp(0.0, 100.0);
    IE_G711 + (95.0 - IE_G711) * loss / (loss + BPL_G711)
}

/// R to MOS (G.107 Annex B).
fn from_r(r: f32) -> f32 {
    if r <= 0.0 {
        return 1.0;
    }
    if r >= 100.0 {
        return 4.5;
    }
    (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7.0e-6).clamp(1.0, 4.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_near(value: f32, reference: f32, tolerance: f32) {
        assert!((value - reference).abs() <= tolerance, "{value} is not {reference}");
    }

    #[test]
    fn r_maps_to_the_limits_printed_in_g107_annex_b() {
        for (r, mos) in [(90.0, 4.34), (80.0, 4.03), (70.0, 3.60), (60.0, 3.10), (50.0, 2.58)] {
            assert_near(from_r(r), mos, 0.01);
        }
        assert_near(from_r(93.2), 4.41, 0.005);
        assert_near(from_r(-5.0), 1.0, 0.0);
        assert_near(from_r(120.0), 4.5, 0.0);
    }

    #[test]
    fn loss_impairment_of_g711_follows_g113() {
        assert_near(loss_impairment(0.0), 0.0, 0.0);
        assert_near(loss_impairment(1.0), 3.64, 0.01);
        assert_near(loss_impairment(5.0), 15.78, 0.01);
        assert_near(loss_impairment(10.0), 27.07, 0.01);
    }

    #[test]
    fn delay_costs_little_before_the_knee_and_much_after() {
        assert_near(delay_impairment(100.0), 2.4, 0.001);
        assert_near(delay_impairment(177.3), 4.255, 0.001);
        assert_near(delay_impairment(277.3), 17.655, 0.001);
    }

    #[test]
    fn mos_never_rises_with_loss_or_delay() {
        for step in 0_u16..100 {
            let at = f32::from(step);
            assert!(estimate(at, 50.0) >= estimate(at + 1.0, 50.0));
            assert!(estimate(1.0, at * 10.0) >= estimate(1.0, at * 10.0 + 10.0));
        }
    }

    #[test]
    fn nonsense_stays_in_range() {
        for (loss, delay) in [(-5.0, -5.0), (500.0, 1e9), (f32::INFINITY, f32::INFINITY)] {
            assert!((1.0..=4.5).contains(&estimate(loss, delay)));
        }
    }
}
