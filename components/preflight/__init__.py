"""Refuse what a later step would refuse, before anything is fetched, trained or deployed."""
