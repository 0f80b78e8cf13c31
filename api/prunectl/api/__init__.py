"""HTTP: translate, call a service, translate back."""
