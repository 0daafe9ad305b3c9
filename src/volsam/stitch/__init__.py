"""From fragments to objects: overlaps, costs, multicut, partition; pure functions on arrays."""
