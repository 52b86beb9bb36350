//! Who gets how many places of a batch: max–min fairness that finishes small demands whole.
//!
//! Plain max–min (Bertsekas and Gallager, *Data Networks*, section 6.5.2) raises everybody's share together until each
//! has what it wants or the room is used up. With thirty lookups of ten keys and a hundred places that slices all of
//! them, and all wait for the third batch. So:
//! 1. whoever wants no more than the max–min level gets it, whole;
//! 2. whoever wants more than the room can ever hold gets the level, and never more while others want;
//! 3. the places left go to those in between, whole, in the order they are given: ten lookups are done in this batch,
//!    ten in the next;
//! 4. what is still left is shared out evenly again, in the order given.

/// Divides `room` places among demands, which are given in the order of their turn. Returns each one's places.
pub(super) fn share(room: usize, demands: &[usize]) -> Vec<usize> {
    let even = level(room, demands);
    let first = |&demand: &usize| if demand <= even || demand > room { demand.min(even) } else { 0 };
    let mut shares: Vec<usize> = demands.iter().map(first).collect();
    let mut left = room - shares.iter().sum::<usize>();
    for (share, &demand) in shares.iter_mut().zip(demands).filter(|(_, demand)| **demand <= room) {
        left -= raise(share, demand, left);
    }
    while left > 0 {
        let wanted: Vec<usize> = shares.iter().zip(demands).map(|(share, demand)| demand - share).collect();
        // Fewer places than takers: one each, in their turn.
        let more = level(left, &wanted.into_iter().filter(|&wanted| wanted > 0).collect::<Vec<_>>()).max(1);
        let before = left;
        for (share, &demand) in shares.iter_mut().zip(demands) {
            left -= raise(share, demand, more.min(left));
        }
        if left == before {
            break; // Everybody has what it wants.
        }
    }
    shares
}

/// Raises a share by at most `more`, up to its demand. Returns by how much.
fn raise(share: &mut usize, demand: usize, more: usize) -> usize {
    let more = (demand - *share).min(more);
    *share += more;
    more
}

/// The greatest whole number of places that everybody who wants as many can have.
fn level(room: usize, demands: &[usize]) -> usize {
    let mut sorted = demands.to_vec();
    sorted.sort_unstable();
    let (mut left, mut unserved) = (room, sorted.len());
    for demand in sorted {
        if demand * unserved > left {
            return left / unserved;
        }
        left -= demand;
        unserved -= 1;
    }
    room
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_lone_key_rides_beside_a_bulk_caller() {
        assert_eq!(share(50, &[2000, 1]), [49, 1]);
    }

    #[test]
    fn a_bulk_caller_gets_all_the_room_that_nobody_else_wants() {
        assert_eq!(share(100, &[2000, 3, 7]), [90, 3, 7]);
        assert_eq!(share(100, &[2000]), [100]);
    }

    #[test]
    fn bulk_callers_share_evenly() {
        assert_eq!(share(100, &[2000, 500]), [50, 50]);
    }

    #[test]
    fn small_demands_are_finished_whole_in_their_turn() {
        let shares = share(100, &[10; 30]);
        assert_eq!(&shares[..10], [10; 10]);
        assert_eq!(&shares[10..], [0; 20]);
    }

    #[test]
    fn more_demands_than_places_are_served_in_their_turn() {
        assert_eq!(share(2, &[1, 1, 1, 1]), [1, 1, 0, 0]);
    }

    #[test]
    fn bulk_callers_beyond_the_number_of_places_get_one_each_in_their_turn() {
        assert_eq!(share(2, &[5, 5, 5, 5]), [1, 1, 0, 0]);
    }

    proptest! {
        #[test]
        fn no_place_is_wasted_or_given_twice(room in 1usize..200, demands in proptest::collection::vec(1usize..300, 0..40)) {
            let shares = share(room, &demands);
            prop_assert_eq!(shares.iter().sum::<usize>(), room.min(demands.iter().sum()));
            for (share, demand) in shares.iter().zip(&demands) {
                prop_assert!(share <= demand);
            }
        }

        #[test]
        fn whoever_wants_no_more_than_an_even_share_gets_it(room in 1usize..200, demands in proptest::collection::vec(1usize..300, 1..40)) {
            let even = room / demands.len();
            for (share, demand) in share(room, &demands).iter().zip(&demands) {
                prop_assert!(*demand > even || share == demand);
            }
        }
    }
}
