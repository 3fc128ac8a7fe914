"""When and where: Prefect flows, parameters, schedules, settings and the command line."""
