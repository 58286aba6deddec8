//! How often the bytes of a component are copied: they are up to 64 MiB, and several are loaded at once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod host;

use amends_tests::Component;
use host::{Place, test};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Of the component: far more than all else that a load allocates.
const BYTES: usize = 32 << 20;

#[tokio::test]
async fn the_bytes_of_a_component_are_not_copied_to_load_it() {
    let place = Place::new();
    let host = place.open().await;
    let mut bytes = Component::default().build();
    // A custom section (Component Model, `Binary.md`) of zeros, whose name is empty.
    bytes.push(0);
    let mut left = BYTES;
    while left > 0x7f {
        bytes.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
        left >>= 7;
    }
    bytes.push(u8::try_from(left).unwrap());
    bytes.resize(bytes.len() + BYTES, 0);
    let _profiler = dhat::Profiler::builder().testing().build();
    let component = host.plugins.candidate(&test(), bytes).await.unwrap().component;
    assert!(component.bytes_len > BYTES);
    let allocated = dhat::HeapStats::get().total_bytes;
    assert!(allocated < BYTES as u64, "{allocated} bytes are allocated for {BYTES}");
    host.close().await;
}
