"""Who may call, over what, and what is refused unread: docs/security.md."""
