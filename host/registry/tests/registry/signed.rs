//! Components that are signed, and those that are not, where `trusted_keys` is set.

use std::io::{Cursor, Write as _};
use std::time::Duration;

use amends_engine::Outcome;
use amends_registry::ActivationReason;
use amends_sandbox::{Rejection, Signed, TrustedKey, TrustedKeys};
use amends_tests::Component;
use minisign::KeyPair;

use crate::host::{Place, digest, soon, test};

fn key() -> KeyPair {
    KeyPair::generate_unencrypted_keypair().unwrap()
}

fn public(key: &KeyPair) -> TrustedKey {
    key.pk.to_base64().parse().unwrap()
}

fn id(key: &KeyPair) -> String {
    public(key).id().to_string()
}

fn trusting(keys: &[&KeyPair]) -> TrustedKeys {
    keys.iter().map(|key| public(key)).collect()
}

/// As `amends plugin sign` does it.
fn signed(bytes: &[u8], key: &KeyPair) -> Vec<u8> {
    let read = Signed::read(bytes).unwrap();
    let text = minisign::sign(None, &key.sk, Cursor::new(read.content()), None, None).unwrap();
    read.with(&text.into_string()).unwrap()
}

fn version(version: &str) -> Vec<u8> {
    Component { version, ..Component::default() }.build()
}

/// What is put behind all of it.
fn with_section(bytes: &[u8], name: &str) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap();
    [bytes, &[0, length + 1, length], name.as_bytes()].concat()
}

#[tokio::test]
async fn a_signed_component_runs_and_what_is_refused_leaves_it_serving() {
    let (ours, theirs) = (key(), key());
    let mut place = Place::new();
    place.trusted_keys = trusting(&[&ours]);
    place.write("test", &signed(&version("1.0.0"), &ours));
    let host = place.open().await;
    assert!(matches!(host.execute().await, Outcome::Succeeded(_)));
    let mut flipped = signed(&version("2.0.0"), &ours);
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let cases = [
        (version("2.0.0"), "it is not signed".to_owned()),
        (signed(&version("2.0.0"), &theirs), format!("it is signed by key {}", id(&theirs))),
        (flipped, format!("its signature by key {} does not fit its bytes", id(&ours))),
    ];
    for (number, (bytes, words)) in cases.iter().enumerate() {
        place.write("test", bytes);
        soon(words, || host.info().rejections.len() == number + 1).await;
        let reason = &host.info().rejections[0].reason;
        assert!(reason.starts_with(words.as_str()) && reason.contains("; "), "{reason}");
        assert_eq!(host.version().as_deref(), Some("1.0.0"));
        let [.., (kind, data)] = &host.events().await[..] else { panic!("no events") };
        assert_eq!((kind.as_str(), &data["reason"]), ("plugin.rejected", &reason.as_str().into()));
        assert_eq!(data["digest"], digest(bytes).to_string());
        // Handed in, and by its digest from the store, it is refused in the same words.
        let handed_in = host.plugins.candidate(&test(), bytes.clone()).await.unwrap_err();
        assert_eq!(handed_in.to_string(), *reason);
    }
    assert!(matches!(host.execute().await, Outcome::Succeeded(_)));
    place.write("test", &signed(&version("2.0.0"), &ours));
    soon("2.0.0 is active", || host.version().as_deref() == Some("2.0.0")).await;
    host.close().await;
}

#[tokio::test]
async fn what_a_key_signed_that_is_trusted_no_more_is_refused_from_the_store_too() {
    let (old, new) = (key(), key());
    let mut place = Place::new();
    place.trusted_keys = trusting(&[&old, &new]);
    let first = signed(&version("1.0.0"), &old);
    place.write("test", &first);
    let host = place.open().await;
    place.write("test", &signed(&version("2.0.0"), &new));
    soon("2.0.0 is active", || host.version().as_deref() == Some("2.0.0")).await;
    let second = host.plugins.active(&test()).unwrap().digest;
    for to in [digest(&first), second] {
        host.plugins.rollback(&test(), Some(to), ActivationReason::default()).await.unwrap();
    }
    assert_eq!(host.version().as_deref(), Some("2.0.0"));
    host.close().await;

    place.trusted_keys = trusting(&[&new]);
    std::fs::remove_file(place.file("test")).unwrap();
    let host = place.open().await;
    assert_eq!(host.version().as_deref(), Some("2.0.0"), "it is served from the store");
    let words = format!("it is signed by key {}, which is not in", id(&old));
    let refused =
        host.plugins.rollback(&test(), Some(digest(&first)), ActivationReason::default()).await;
    let refused = refused.unwrap_err();
    assert!(refused.to_string().contains(&words), "{refused}");
    let refused = host.plugins.by_digest(&test(), digest(&first)).await.unwrap_err();
    assert!(refused.to_string().contains(&words), "{refused}");
    assert_eq!(host.version().as_deref(), Some("2.0.0"));
    host.close().await;

    place.trusted_keys = trusting(&[&key()]);
    let host = place.open().await;
    assert_eq!(host.version(), None, "nobody serves rather than one that is not trusted");
    host.close().await;
}

#[tokio::test]
async fn compiled_code_is_no_way_around() {
    let mut place = Place::new();
    place.write("test", &version("1.0.0"));
    let host = place.open().await;
    assert_eq!(host.plugins.compiled(), 1);
    host.close().await;
    place.trusted_keys = trusting(&[&key()]);
    let host = place.open().await;
    assert_eq!(host.version(), None);
    assert!(host.info().rejections[0].reason.starts_with("it is not signed"));
    host.close().await;
}

#[tokio::test]
async fn a_signature_does_not_make_a_component_of_a_core_module() {
    let ours = key();
    let mut place = Place::new();
    place.trusted_keys = trusting(&[&ours]);
    place.write("test", &signed(&Component::default().core_module(), &ours));
    let host = place.open().await;
    assert_eq!(host.version(), None);
    assert!(host.info().rejections[0].reason.starts_with("it is a core module"));
    host.close().await;
}

#[tokio::test]
async fn a_copy_whose_signature_has_not_come_yet_is_not_refused() {
    let ours = key();
    let mut place = Place::new();
    place.trusted_keys = trusting(&[&ours]);
    place.write("test", &signed(&version("1.0.0"), &ours));
    let host = place.open().await;
    let bytes = version("2.0.0");
    let whole = signed(&bytes, &ours);
    place.write("test", &bytes);
    // Longer than a file must be quiet to be read.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let mut file = std::fs::OpenOptions::new().append(true).open(place.file("test")).unwrap();
    file.write_all(&whole[bytes.len()..]).unwrap();
    soon("2.0.0 is active", || host.version().as_deref() == Some("2.0.0")).await;
    assert_eq!(host.info().rejections, []);
    host.close().await;
}

#[test]
fn no_byte_can_be_changed_but_those_of_the_comment_that_nobody_trusts() {
    let ours = key();
    let (bytes, trusted) = (version("1.0.0"), trusting(&[&ours]));
    let whole = signed(&bytes, &ours);
    assert_eq!(trusted.check(&whole), Ok(()));
    assert_eq!(whole[..bytes.len()], bytes, "what is signed is as it was built");
    let comment = b"untrusted comment: ";
    let begin = whole.windows(comment.len()).position(|part| part == comment).unwrap();
    let end = begin + whole[begin..].iter().position(|byte| *byte == b'\n').unwrap();
    for at in 0..whole.len() {
        for bit in [1, 0x80] {
            let mut changed = whole.clone();
            changed[at] ^= bit;
            let is_free = (begin..end).contains(&at) && bit == 1;
            assert_eq!(trusted.check(&changed).is_ok(), is_free, "bit {bit} of byte {at}");
        }
    }
    for len in 0..whole.len() {
        assert!(trusted.check(&whole[..len]).is_err(), "cut off after {len}");
    }
}

#[test]
fn keys_change_one_after_another() {
    let (old, new, other) = (key(), key(), key());
    let bytes = version("1.0.0");
    let first = signed(&bytes, &old);
    let both = signed(&first, &new);
    for trusted in [&[&old][..], &[&new], &[&other, &new]] {
        assert_eq!(trusting(trusted).check(&both), Ok(()));
    }
    let keys: Vec<_> =
        Signed::read(&both).unwrap().keys().iter().map(ToString::to_string).collect();
    assert_eq!(keys, [id(&old), id(&new)]);
    let refused = trusting(&[&other]).check(&both).unwrap_err();
    assert_eq!(refused, Rejection::Untrusted { keys: format!("{}, {}", id(&old), id(&new)) });
    // Signed again by the same key it has no more signatures than before.
    let again = signed(&both, &old);
    assert_eq!(again.len(), both.len());
    assert_eq!(trusting(&[&old]).check(&again), Ok(()));
    // No key: whatever it has, it is loaded.
    assert_eq!(TrustedKeys::default().check(&bytes), Ok(()));
}

#[test]
fn a_signature_counts_at_the_end_alone_and_there_are_not_many() {
    let ours = key();
    let trusted = trusting(&[&ours]);
    let whole = signed(&version("1.0.0"), &ours);
    let followed = with_section(&whole, "other");
    assert_eq!(trusted.check(&followed), Err(Rejection::Unsigned));
    assert_eq!(trusted.check(&signed(&followed, &ours)), Ok(()));
    // Of what is no signature nothing is said but that; beside one it does no harm.
    let damaged = with_section(&version("1.0.0"), "amends:signature");
    assert_eq!(trusted.check(&damaged), Err(Rejection::SignatureDamaged));
    assert_eq!(trusted.check(&with_section(&whole, "amends:signature")), Ok(()));

    let mut many = version("1.0.0");
    for _ in 0..16 {
        many = signed(&many, &key());
    }
    assert!(matches!(trusted.check(&many), Err(Rejection::Untrusted { .. })));
    let read = Signed::read(&many).unwrap();
    let text = minisign::sign(None, &ours.sk, Cursor::new(read.content()), None, None).unwrap();
    let refused = read.with(&text.into_string()).unwrap_err();
    assert_eq!(refused, Rejection::TooManySignatures { found: 17, max: 16 });
    let forced = with_section(&many, "amends:signature");
    assert_eq!(trusted.check(&forced), Err(refused));
}

#[test]
fn what_is_no_public_key_is_refused() {
    let ours = key();
    let secret = ours.sk.to_box(None).unwrap().into_string();
    let secret = secret.lines().nth(1).unwrap();
    let told = secret.parse::<TrustedKey>().unwrap_err();
    assert!(told.contains("secret key"), "{told}");
    let public = ours.pk.to_base64();
    for text in ["", "ghcr.io", &public[1..], &public.replace("RW", "AA")] {
        let told = text.parse::<TrustedKey>().unwrap_err();
        assert!(told.contains("not a minisign public key"), "{text}: {told}");
    }
}
