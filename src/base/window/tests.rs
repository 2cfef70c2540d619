use std::collections::BTreeMap;

use proptest::prelude::*;

use super::Window;

proptest! {
    #[test]
    fn behaves_like_an_ordered_map(steps in prop::collection::vec((0_u8..3, 0_u64..400), 0..300), from in 0_u64..400) {
        let mut window = Window::default();
        let mut model = BTreeMap::new();
        for (step, (what, number)) in steps.into_iter().enumerate() {
            match what {
                0 | 1 => prop_assert_eq!(window.insert(number, step), model.insert(number, step)),
                _ => prop_assert_eq!(window.remove(number), model.remove(&number)),
            }
            prop_assert_eq!(window.len(), model.len());
            prop_assert_eq!(window.get(number), model.get(&number));
        }
        prop_assert!(window.iter().eq(model.iter().map(|(n, v)| (*n, v))));
        prop_assert!(window.range_from(from).eq(model.range(from..).map(|(n, v)| (*n, v))));
        prop_assert_eq!(window.first(), model.first_key_value().map(|(n, v)| (*n, v)));
        prop_assert_eq!(window.last(), model.last_key_value().map(|(n, v)| (*n, v)));
        prop_assert_eq!(window.next_from(from), model.range(from..).next().map(|(n, _)| *n));
    }
}

#[test]
fn one_kept_value_costs_one_page() {
    let mut window = Window::default();
    window.insert(7, ());
    for number in 8..100_000 {
        window.insert(number, ());
        window.remove(number);
    }
    assert_eq!(window.pages.len(), 1);
}
