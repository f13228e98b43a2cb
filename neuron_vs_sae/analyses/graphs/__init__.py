"""Attribution graphs: what each unit takes directly from every earlier one, in any basis."""
