//! Which slot of a Redis Cluster a key is in. Pure.

use std::sync::LazyLock;

const SLOTS: u16 = 16_384;
/// As many primaries with equal shares can be told apart.
const PARTS: u16 = 64;

/// Hash tags whose slots lie in equal parts of all slots, so that keys with them reach every primary.
pub(super) static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut tags = vec![None; usize::from(PARTS)];
    for number in 0_u32.. {
        let tag = number.to_string();
        let found = &mut tags[usize::from(slot(&tag) / (SLOTS / PARTS))];
        if found.is_none() {
            *found = Some(tag);
            if tags.iter().all(Option::is_some) {
                break;
            }
        }
    }
    tags.into_iter().flatten().collect()
});

/// The slot of a hash tag: CRC-16/XMODEM of it.
fn slot(tag: &str) -> u16 {
    let shift = |crc: u16| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
    let crc = tag.bytes().fold(0, |crc, byte| (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| shift(crc)));
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // As CLUSTER KEYSLOT answers.
        for (tag, expected) in [("123456789", 12_739), ("foo", 12_182), ("hookfleet", 6151), ("", 0)] {
            assert_eq!(slot(tag), expected, "{tag}");
        }
    }

    #[test]
    fn every_part_has_a_tag() {
        let parts: Vec<u16> = TAGS.iter().map(|tag| slot(tag) / (SLOTS / PARTS)).collect();
        assert_eq!(parts, (0..PARTS).collect::<Vec<_>>());
    }
}
