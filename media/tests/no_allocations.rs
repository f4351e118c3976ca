//! Nothing on a packet's way allocates: every step is run under an allocator that counts.

mod counting;

use counting::{Counting, allocations};
use media::codec::Codec;
use media::codec::conceal::Concealer;
use media::codec::resample::{Downsampler, Upsampler, WIDE_SAMPLES};
use media::frame::{FRAME_SAMPLES, Frame};
use media::noise::{Cleaner, Rnn};
use media::packet::rtcp::{Compound, ReportBlock, SenderInfo};
use media::packet::rtp::{self, Header};
use media::packet::{Kind, classify, rtcp};
use media::srtp::{MASTER_BYTES, MasterKey, SrtpPair, SrtpSession, Suite, TAIL_ROOM};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PACKET_BYTES: usize = rtp::HEADER_BYTES + FRAME_SAMPLES;

/// Runs a step some times to warm up and then asserts that a hundred more allocate nothing.
fn assert_no_allocations(what: &str, mut step: impl FnMut(u16)) {
    const WARM_UP: u16 = 10;
    (0..WARM_UP).for_each(&mut step);
    let before = allocations();
    (WARM_UP..WARM_UP + 100).for_each(&mut step);
    assert_eq!(allocations() - before, 0, "{what}");
}

fn header(sequence: u16) -> Header {
    Header { payload_type: 0, marker: false, sequence, timestamp: 0, ssrc: 7 }
}

fn tone(at: u16) -> Frame {
    let mut sample = at.cast_signed();
    Frame {
        samples: std::array::from_fn(|_| {
            sample = sample.wrapping_mul(409).wrapping_add(77);
            sample
        }),
    }
}

#[test]
fn the_counter_counts() {
    let before = allocations();
    std::hint::black_box(vec![1_u8; 100]);
    assert_eq!(allocations() - before, 1);
}

#[test]
fn protecting_and_unprotecting() {
    let keys = [MasterKey::new([1; MASTER_BYTES]), MasterKey::new([2; MASTER_BYTES])];
    for suite in Suite::ALL {
        let mut near = SrtpPair::new(suite, &keys[0], &keys[1]);
        let mut far = SrtpPair::new(suite, &keys[1], &keys[0]);
        let mut buffer = [0; PACKET_BYTES + TAIL_ROOM];
        assert_no_allocations("SRTP", |at| {
            rtp::write_header(&mut buffer, header(at)).unwrap();
            let len = near.protect(&mut buffer, PACKET_BYTES).unwrap();
            assert_eq!(far.unprotect(&mut buffer.clone(), len), Ok(PACKET_BYTES));
            // Refusing costs nothing either: a replay, then a forgery from a new source each time.
            assert!(far.unprotect(&mut buffer.clone(), len).is_err());
            buffer[8..10].copy_from_slice(&at.to_be_bytes());
            assert!(far.unprotect(&mut buffer, len).is_err());
        });
        assert_no_allocations("SRTCP", |_| {
            let report = report(&[]);
            let len = report.write(&mut buffer).unwrap();
            let protected = near.protect_rtcp(&mut buffer, len).unwrap();
            assert_eq!(far.unprotect_rtcp(&mut buffer.clone(), protected), Ok(len));
            assert!(far.unprotect_rtcp(&mut buffer, protected).is_err());
        });
    }
}

fn report(reports: &[ReportBlock]) -> Compound<'_> {
    let sender = Some(SenderInfo::default());
    Compound { ssrc: 7, sender, reports, cname: "a-canonical-name", bye: true }
}

#[test]
fn reading_and_rewriting_headers() {
    let mut buffer = [0; PACKET_BYTES];
    rtp::write_header(&mut buffer, header(1)).unwrap();
    assert_no_allocations("RTP", |at| {
        assert_eq!(classify(&buffer), Kind::Rtp);
        let view = rtp::view(&buffer).unwrap();
        assert_eq!(view.payload(&buffer).len(), FRAME_SAMPLES);
        rtp::rewrite_header(&mut buffer, Header { sequence: at, ..view.header }).unwrap();
    });
}

#[test]
fn writing_and_reading_reports() {
    let mut buffer = [0; 256];
    assert_no_allocations("RTCP", |_| {
        let len = report(&[ReportBlock::default(); 2]).write(&mut buffer).unwrap();
        for packet in rtcp::parse(&buffer[..len]).unwrap() {
            if let rtcp::Packet::SenderReport { reports, .. } = packet {
                assert_eq!(reports.count(), 2);
            }
        }
    });
}

#[test]
fn codecs_and_resampling() {
    let (mut up, mut down) = (Upsampler::new(), Downsampler::new());
    let mut wide = [0.0; WIDE_SAMPLES];
    let mut codes = [0; FRAME_SAMPLES];
    assert_no_allocations("codecs", |at| {
        let mut frame = tone(at);
        Codec::Pcmu.encode(&frame.samples, &mut codes);
        Codec::Pcma.decode(&codes, &mut frame.samples);
        up.process(&frame.samples, &mut wide);
        down.process(&wide, &mut frame.samples);
    });
}

#[test]
fn suppressing_noise() {
    let mut cleaner = Cleaner::new(Rnn::new());
    assert_no_allocations("noise suppression", |at| {
        cleaner.process(&mut tone(at), true);
        std::hint::black_box(cleaner.report());
    });
}

#[test]
fn concealing() {
    let mut concealer = Concealer::new(1);
    assert_no_allocations("concealment", |at| match at % 10 {
        0..5 => concealer.heard(&mut tone(at)),
        5 => concealer.described(&[60, 100, 150]),
        _ => concealer.missing(&mut Frame::SILENCE.clone()),
    });
}
