"""What training loops share: their device, and what they keep of a policy."""
