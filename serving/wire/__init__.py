"""What venue, parents and gateway share on the wire: frames and their authentication, the feed, FIX sessions."""
