"""lockmodel: can these Postgres transactions deadlock?"""
