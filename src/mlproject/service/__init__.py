"""The service that reconciles again and again, and the webhooks that trigger it sooner.

Other packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = ["health", "loop", "retries", "watching", "webhook_listener", "webhook_registration"]
